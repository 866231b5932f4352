"""Files of an archive that were damaged on the disk: all others answer, and what is missing is said and counted."""

import duckdb
import pytest

from introspan_collector.archive.damage import Damage
from introspan_collector.archive.observations import Observations, Question
from introspan_wire.signals import Kind
from tests.archives import NOW, consume, opened, some_batches, stored

HOUR = 3_600.0
DAMAGES = {
    "garbage": lambda content: bytes(reversed(content)),
    "empty": lambda content: content[:0],
    "cut off": lambda content: content[: len(content) // 2],
    "a page rotten": lambda content: content[:40] + bytes(200) + content[240:],
}


@pytest.fixture(params=DAMAGES)
def damage(request):
    """Damages a file."""

    def do(path):
        path.write_bytes(DAMAGES[request.param](path.read_bytes()))

    return do


@pytest.fixture
def archive(tmp_path):
    """Two parts of two requests each."""
    made = opened(tmp_path)
    for number in range(2):
        consume(made, some_batches(1, first=number, rows=2))
        made.flush()
    return made


def requests():
    return [one.tables[0].request_id for number in range(2) for one in some_batches(1, first=number, rows=2)]


def found(archive, request_id):
    seconds = NOW / 1e9
    stored = archive.request(request_id, seconds - HOUR, seconds + HOUR)
    return [id_ for one in stored for id_ in one.table.request_id]


def parts(folder):
    return sorted((folder / "observations").rglob("*.parquet"))


def test_a_damaged_part_hides_its_own_requests_alone_and_is_counted(archive, tmp_path, damage):
    (lost, _), (kept, also) = requests()
    damage(parts(tmp_path)[0])
    assert found(archive, lost) == []
    assert found(archive, kept) == [kept]
    assert archive.stats().unreadable_files == 1
    newest = archive.newest("model", None, None, Kind.DECODED, 10)
    assert sorted(id_ for one in newest for id_ in one.table.request_id) == sorted([kept, also])


@pytest.mark.usefixtures("archive")
def test_observations_of_all_other_parts_are_shown_and_the_file_is_named(tmp_path, damage, capsys):
    _, kept = requests()
    damage(parts(tmp_path)[0])
    assert sorted(row["request_id"] for row in stored(tmp_path)) == sorted(kept)
    assert str(parts(tmp_path)[0]) in capsys.readouterr().out
    with Observations(tmp_path) as observations:
        observations.write_parquet(Question(), tmp_path / "values")
    written = duckdb.read_parquet(str(tmp_path / "values")).project("request_id").distinct().fetchall()
    assert sorted(id_ for (id_,) in written) == sorted(kept)


def test_where_every_part_is_damaged_nothing_is_found_and_nothing_fails(tmp_path, archive, damage):
    for path in parts(tmp_path):
        damage(path)
    assert found(archive, requests()[0][0]) == []
    assert archive.newest("model", None, None, None, 10) == []
    assert stored(tmp_path) == []
    with Observations(tmp_path) as observations:
        assert observations.newest(Question(), 10) == []
        observations.write_parquet(Question(), tmp_path / "values")
    assert archive.stats().unreadable_files == 2


def test_a_damaged_schema_is_written_again_when_its_like_comes_again(tmp_path, archive, damage):
    (first, _), _ = requests()
    (schema,) = (tmp_path / "schemas").iterdir()
    damage(schema)
    assert found(archive, first) == []
    assert stored(tmp_path) == []
    again = opened(tmp_path)
    consume(again, some_batches(1, first=2, rows=2))
    again.flush()
    assert again.stats().unreadable_files == 1
    assert found(again, first) == [first]
    assert len(stored(tmp_path)) == 6


def test_what_is_no_files_fault_is_raised(tmp_path):
    (tmp_path / "good").write_text("")
    damage = Damage()

    def fails(files):
        if len(files) > 1:
            raise duckdb.OutOfMemoryException("memory")

    with pytest.raises(duckdb.OutOfMemoryException):
        damage.read(lambda: [tmp_path / "good", tmp_path / "other"], fails)
    assert len(damage) == 0

"""Parts, rollups, the cursor, retention and a disk that refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest

from bench.fleet import SECOND_NANO, Shape, batch, origin, schema, table
from introspan_collector.archive.archive import Archive
from introspan_collector.archive.observations import Observations, Question
from introspan_collector.archive.part import Segments
from introspan_collector.archive.settings import ArchiveSettings
from introspan_wire.signals import Kind

NOW = 1_800_000_000 * SECOND_NANO  # 2027-01-15T08:00:00Z
SHAPE = Shape(residual_layers=(0, 8), attention_layers=(8,), projection_layers=(8,), heads=2)
EVERY = ("output.entropy", None, None, None, None)


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now

    def forward(self, seconds):
        self.now += int(seconds * SECOND_NANO)


def some_batches(count, *, first=0, received=NOW, kind=Kind.DECODED, rows=3, traced_share=0.5):
    of = schema(SHAPE, kind)
    return [
        batch(
            table(
                of, rows, np.random.default_rng(number), time_unix_nano=received, traced_share=traced_share
            ),
            number=number,
            received_unix_nano=received,
        )
        for number in range(first, first + count)
    ]


def opened(folder, clock=None, **settings):
    return Archive(folder, ArchiveSettings(**settings), clock or Clock())


def files(folder, kind="observations"):
    return sorted(str(path.relative_to(folder / kind)) for path in (folder / kind).rglob("*.parquet"))


def stored(folder, question=None, tail=()):
    with Observations(folder, lambda _offset: tail) as found:
        return list(found.rows(question or Question()))


def consume(archive, batches):
    for one in batches:
        archive.consume(one)


def test_a_part_is_named_by_hour_and_range_and_is_the_cursor(tmp_path):
    archive = opened(tmp_path)
    consume(archive, some_batches(3))
    assert archive.cursor() == 0
    archive.flush()
    name = "hour=2027-01-15T08/00000000000000000000-00000000000000003000.parquet"
    assert files(tmp_path) == files(tmp_path, "rollups") == [name]
    assert archive.cursor() == 3_000
    assert opened(tmp_path).cursor() == 3_000


def test_every_value_comes_back_as_it_was_sent(tmp_path):
    archive = opened(tmp_path)
    batches = some_batches(2) + some_batches(2, first=2, kind=Kind.PROMPT)
    batches[0].tables[0].values[0, :5] = np.nan
    consume(archive, batches)
    archive.flush()
    rows = {row["request_id"]: row for row in stored(tmp_path)}
    assert len(rows) == 12
    for one in batches:
        (of,) = one.tables
        for i, request_id in enumerate(of.request_id):
            row = rows[request_id]
            for name in ("token_start", "token_count", "measured_count", "cached_tokens", "prompt_tokens"):
                assert row[name] == getattr(of, name)[i]
            assert row["trace_id"] == (of.trace_id[i].tobytes().hex() if of.trace_id[i].any() else None)
            assert row["span_id"] == (of.span_id[i].tobytes().hex() if of.span_id[i].any() else None)
            assert (row["kind"], row["model"], row["time"]) == (
                of.schema.kind,
                "model",
                "2027-01-15T08:00:00.000000Z",
            )
            values = [tuple(item.values()) for item in row["values"]]
            assert values == expected_values(of, i)


def expected_values(of, row):
    none = {-1: None}
    return [
        (c.signal, none.get(c.layer, c.layer), none.get(c.head, c.head), none.get(c.component, c.component),
         c.statistic.value, float(value))
        for c, value in zip(of.schema.columns, of.values[row], strict=True)
        if not np.isnan(value)
    ]  # fmt: skip


def test_questions_select_request_time_and_signal(tmp_path):
    archive = opened(tmp_path)
    early, late = some_batches(1), some_batches(1, first=1, received=NOW + 7_200 * SECOND_NANO)
    consume(archive, early + late)
    archive.flush()
    wanted = early[0].tables[0].request_id[1]
    assert [row["request_id"] for row in stored(tmp_path, Question(request_id=wanted))] == [wanted]
    since = Question(since_unix_nano=NOW + 1)
    assert {row["request_id"] for row in stored(tmp_path, since)} == set(late[0].tables[0].request_id)
    for row in stored(tmp_path, Question(signal="residual.velocity")):
        assert {(value["signal"], value["layer"]) for value in row["values"]} == {
            ("residual.velocity", 0),
            ("residual.velocity", 8),
        }
    assert stored(tmp_path, Question(signal="attention.entropy", request_id="nobody")) == []


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("cmpl-X", ["cmpl-X", "cmpl-X-0", "cmpl-X-12", "0_cmpl-X", "13_cmpl-X-1"]),
        ("cmpl-X-1", ["13_cmpl-X-1"]),
        ("resp_X", ["resp_X_0"]),
        ("a+(b", ["a+(b", "a+(b-0"]),
        ("mpl-X", []),
        ("cmpl-", []),
        (".*", []),
    ],
)
def test_a_request_is_found_by_the_id_its_client_got_in_the_parts_and_in_the_tail(tmp_path, asked, found):
    names = ["cmpl-X", "cmpl-X-0", "cmpl-X-12", "0_cmpl-X", "13_cmpl-X-1", "resp_X_0", "a+(b", "a+(b-0"]
    names += ["cmpl-XY", "cmpl-X-a", "cmpl-X-0-0", "a_cmpl-X", "_cmpl-X", "1cmpl-X", "cmpl-X-"]
    archived, waiting = some_batches(2, rows=len(names))
    archived, waiting = (
        replace(one, tables=(replace(one.tables[0], request_id=names),)) for one in (archived, waiting)
    )
    archive = opened(tmp_path)
    archive.consume(archived)
    archive.flush()
    rows = stored(tmp_path, Question(request_id=asked), [Segments(waiting, waiting.tables[0])])
    assert sorted(row["request_id"] for row in rows) == sorted(found * 2)


def test_the_tail_of_the_log_is_found_beside_the_parts(tmp_path):
    archive = opened(tmp_path / "archive")
    batches = some_batches(4)
    consume(archive, batches[:2])
    archive.flush()
    tail = [Segments(one, one.tables[0]) for one in batches[2:]]
    found = [row["request_id"] for row in stored(tmp_path / "archive", tail=tail)]
    assert found == [name for one in batches for name in sorted(one.tables[0].request_id)]
    assert len(stored(tmp_path / "nothing", tail=tail)) == 6


def test_what_is_archived_while_the_log_is_read_comes_once(tmp_path):
    archive = opened(tmp_path)
    batches = some_batches(4)
    consume(archive, batches[:2])
    archive.flush()

    def tail(offset):
        consume(archive, batches[2:])
        archive.flush()
        return [Segments(one, one.tables[0]) for one in batches if one.offset >= offset]

    with Observations(tmp_path, tail) as found:
        names = [row["request_id"] for row in found.rows(Question())]
    assert sorted(names) == sorted(name for one in batches for name in one.tables[0].request_id)


def test_parts_without_any_trace_are_read_together_with_parts_that_have_one(tmp_path):
    archive = opened(tmp_path)
    for number, share in enumerate((0.0, 1.0, 0.0)):
        consume(archive, some_batches(1, first=number, traced_share=share))
        archive.flush()
    assert len(files(tmp_path)) == 3
    assert [row["trace_id"] is None for row in stored(tmp_path)] == [*[True] * 3, *[False] * 3, *[True] * 3]
    assert {type(row["span_id"]) for row in stored(tmp_path)} == {str, type(None)}


def test_json_lines_and_parquet_hold_what_rows_hold(tmp_path):
    archive = opened(tmp_path)
    consume(archive, some_batches(2))
    archive.flush()
    with Observations(tmp_path) as found:
        found.write_json_lines(Question(), tmp_path / "out.jsonl")
        found.write_parquet(Question(), tmp_path / "out.parquet")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    rows = stored(tmp_path)
    assert [line["request_id"] for line in lines] == [row["request_id"] for row in rows]
    assert [line["trace_id"] for line in lines] == [row["trace_id"] for row in rows]
    for line, row in zip(lines, rows, strict=True):
        expected = [value["value"] for value in row["values"]]
        assert [value["value"] for value in line["values"]] == pytest.approx(expected, rel=1e-6)
    count = "SELECT count(*), count(DISTINCT request_id) FROM read_parquet(?)"
    flat = duckdb.connect().execute(count, [str(tmp_path / "out.parquet")])
    assert flat.fetchone() == (sum(len(row["values"]) for row in rows), 6)


def test_replay_after_a_crash_at_any_batch_gives_every_row_once(tmp_path):
    batches = some_batches(8)
    for crash in range(len(batches) + 1):
        folder = tmp_path / str(crash)
        archive = opened(folder, buffer_bytes=6_000)  # a part every few batches
        consume(archive, batches[:crash])
        again = opened(folder)  # the first is abandoned with what it had buffered
        consume(again, [one for one in batches if one.offset >= again.cursor()])
        again.flush()
        names = [row["request_id"] for row in stored(folder)]
        assert sorted(names) == sorted(name for one in batches for name in one.tables[0].request_id)
        assert counted(again) == 24


def counted(archive):
    return sum(track.moments.count.sum() for track in archive.tracks(EVERY, 0, NOW / SECOND_NANO + 86_400))


def test_batches_already_archived_are_not_taken_again(tmp_path):
    archive = opened(tmp_path)
    consume(archive, some_batches(2))
    archive.flush()
    again = opened(tmp_path)
    consume(again, some_batches(3))
    again.flush()
    assert files(tmp_path)[-1].endswith("00000000000000002000-00000000000000003000.parquet")
    assert len(stored(tmp_path)) == 9


def test_a_crash_between_rollup_and_part_counts_nothing_twice(tmp_path):
    archive = opened(tmp_path)
    consume(archive, some_batches(2))
    archive.flush()
    shutil.rmtree(tmp_path / "observations")  # the crash: its rollup is there, the part is not
    (tmp_path / "observations" / "hour=2027-01-15T08").mkdir(parents=True)
    half = (
        tmp_path
        / "observations"
        / "hour=2027-01-15T08"
        / "00000000000000000000-00000000000000002000.parquet.tmp"
    )
    half.write_bytes(b"half")
    again = opened(tmp_path)
    assert again.cursor() == 0
    assert not half.exists()
    consume(again, some_batches(3))
    again.flush()
    assert counted(again) == 9


def test_a_new_hour_begins_a_new_part(tmp_path):
    archive = opened(tmp_path)
    consume(archive, some_batches(1) + some_batches(1, first=1, received=NOW + 3_600 * SECOND_NANO))
    archive.flush()
    assert [name.split("/")[0] for name in files(tmp_path)] == ["hour=2027-01-15T08", "hour=2027-01-15T09"]


def test_a_part_is_written_once_it_is_old_enough(tmp_path):
    clock = Clock()
    archive = opened(tmp_path, clock, flush_seconds=30)
    consume(archive, some_batches(1))
    clock.forward(29)
    archive.flush_due()
    assert files(tmp_path) == []
    clock.forward(1)
    archive.flush_due()
    assert len(files(tmp_path)) == 1


def test_empty_batches_move_the_cursor_without_a_part(tmp_path):
    archive = opened(tmp_path)
    archive.consume(batch((), number=0, received_unix_nano=NOW))
    archive.flush()
    assert (archive.cursor(), files(tmp_path)) == (1_000, [])


def test_rollups_are_one_minute_statistics_that_merge_across_parts(tmp_path):
    archive = opened(tmp_path)
    batches = some_batches(2) + some_batches(2, first=2, received=NOW + 60 * SECOND_NANO)
    for one in batches:
        archive.consume(one)
        archive.flush()
    (track,) = archive.tracks(("output.entropy", "model", "replica-0", "", -1), 0, 2e9)
    assert track.starts.tolist() == [1_800_000_000, 1_800_000_060]
    column = [c.signal for c in batches[0].tables[0].schema.columns].index("output.entropy")
    for minute in (0, 1):
        values = np.concatenate(
            [one.tables[0].values[:, column] for one in batches[2 * minute : 2 * minute + 2]]
        )
        moments = track.moments.at(minute)
        assert moments.count == 6
        assert moments.mean == pytest.approx(values.mean(), rel=1e-6)
        assert moments.m2 == pytest.approx(((values - values.mean()) ** 2).sum(), rel=1e-5)
        assert (moments.low, moments.high) == (values.min(), values.max())


def test_rollups_are_selected_by_series_and_time(tmp_path):
    archive = opened(tmp_path)
    of = replace(some_batches(1)[0].tables[0], adapter=["", "poet", "poet"])
    archive.consume(batch(of, who=origin("a", "0"), number=0, received_unix_nano=NOW))
    archive.consume(batch(of, who=origin("b", "1"), number=1, received_unix_nano=NOW))
    archive.flush()
    found = archive.tracks(("residual.turn", "b", None, "poet", 8), 0, 2e9)
    expected = ("b", "1", "poet", "residual.turn", 8, [2])
    assert [(*track.key, track.moments.count.tolist()) for track in found] == [expected]
    assert len(archive.tracks(("residual.turn", None, None, None, None), 0, 2e9)) == 8
    assert archive.tracks(("residual.turn", None, None, None, None), 1_800_000_060, 2e9) == []


def hours_of_rollups(folder):
    clock = Clock()
    archive = opened(folder, clock)
    for number in range(12):
        consume(archive, some_batches(1, first=number, received=clock.now))
        archive.flush()
        clock.forward(900)
    return archive


def test_rollups_of_an_hour_that_is_over_become_one_file(tmp_path):
    archive = hours_of_rollups(tmp_path)
    assert [name[5:18] for name in files(tmp_path, "rollups")] == [
        "2027-01-15T08", "2027-01-15T09", *["2027-01-15T10"] * 4
    ]  # fmt: skip
    assert len(files(tmp_path)) == 12
    assert counted(archive) == counted(opened(tmp_path)) == 36


def test_a_crash_while_rollups_are_joined_counts_nothing_twice(tmp_path):
    archive = hours_of_rollups(tmp_path / "joined")
    clock = Clock()
    for number in range(4):  # the first hour again, not joined
        other = opened(tmp_path / "parts", clock)
        consume(other, some_batches(1, first=number, received=clock.now))
        other.flush()
        clock.forward(900)
    hour = "hour=2027-01-15T08"
    for path in (tmp_path / "parts" / "rollups" / hour).iterdir():
        shutil.copy(path, tmp_path / "joined" / "rollups" / hour)  # joined, and not yet deleted
    assert len(files(tmp_path / "joined", "rollups")) == 10
    assert counted(opened(tmp_path / "joined")) == 36
    consume(archive, some_batches(1, first=12, received=NOW + 12 * 900 * SECOND_NANO))
    archive.flush_due()
    archive.flush()
    assert len([name for name in files(tmp_path / "joined", "rollups") if name.startswith(hour)]) == 1
    assert counted(archive) == 39


def truncated(path):
    return path.read_bytes()[:-40]


def scrambled(path):
    data = path.read_bytes()
    return data[:4] + bytes(255 - byte for byte in data[4:-1500]) + data[-1500:]


@pytest.mark.parametrize("damage", [truncated, scrambled])
def test_a_damaged_file_is_left_out_of_answers_and_said_once(tmp_path, capsys, damage):
    archive = opened(tmp_path)
    for number in range(3):
        consume(archive, some_batches(1, first=number))
        archive.flush()
    path = tmp_path / "rollups" / files(tmp_path, "rollups")[1]
    path.write_bytes(damage(path))
    assert [counted(archive), counted(archive)] == [6, 6]
    assert archive.stats().unreadable_files == 1
    assert capsys.readouterr().out.count("archive has a damaged file") == 1


def test_a_damaged_hour_keeps_neither_others_from_being_joined_nor_old_ones_from_being_deleted(tmp_path):
    clock = Clock()
    archive = opened(tmp_path, clock, max_age_seconds=7_200)
    for number in range(8):
        consume(archive, some_batches(1, first=number, received=clock.now))
        archive.flush()
        if number == 0:
            first = tmp_path / "rollups" / files(tmp_path, "rollups")[0]
            first.write_bytes(truncated(first))
        clock.forward(1_800)
    by_hour = [sum(f"T{hour:02d}" in name for name in files(tmp_path, "rollups")) for hour in range(8, 12)]
    assert by_hour == [2, 1, 1, 2]
    assert not any("T08" in name for name in files(tmp_path))


def test_old_parts_are_deleted_but_never_the_cursor(tmp_path):
    clock = Clock()
    archive = opened(tmp_path, clock, max_age_seconds=7_200)
    for hour in range(6):
        consume(archive, some_batches(1, first=hour, received=clock.now))
        archive.flush()
        clock.forward(3_600)
    assert [name.split("/")[0][-2:] for name in files(tmp_path)] == ["11", "12", "13"]
    assert len(files(tmp_path, "rollups")) == 6
    clock.forward(86_400)
    consume(archive, some_batches(1, first=6, received=clock.now))
    archive.flush()
    assert len(files(tmp_path)) == 1
    assert opened(tmp_path).cursor() == 7_000


def test_the_cursor_is_kept_even_when_all_it_holds_is_old(tmp_path):
    archive = opened(tmp_path, max_age_seconds=7_200)
    consume(
        archive, some_batches(2, received=NOW - 10 * 86_400 * SECOND_NANO)
    )  # a log that nobody read for days
    archive.flush()
    assert opened(tmp_path).cursor() == 2_000


def test_the_oldest_parts_are_deleted_beyond_a_size(tmp_path):
    clock = Clock()
    archive = opened(tmp_path, clock, max_bytes=1)
    for number in range(3):
        consume(archive, some_batches(1, first=number, received=clock.now))
        archive.flush()
        clock.forward(61)
    assert [name[-12:] for name in files(tmp_path)] == ["3000.parquet"]
    assert archive.stats().bytes_deleted > 0


def test_a_disk_that_refuses_is_counted_retried_and_lives(tmp_path, capsys):
    clock = Clock()
    archive = opened(tmp_path, clock)
    (tmp_path / "observations").write_text("in the way")  # no folder can be made here, whoever we are
    consume(archive, some_batches(2))
    for _ in range(3):
        archive.flush()
    assert archive.stats().write_errors == 3
    assert capsys.readouterr().out.count("archive cannot be written") == 1
    assert archive.cursor() == 0
    (tmp_path / "observations").unlink()
    clock.forward(31)
    archive.flush_due()
    assert archive.cursor() == 2_000
    assert len(stored(tmp_path)) == 6
    assert counted(archive) == 6


def test_a_disk_that_goes_on_refusing_costs_bounded_memory_and_counts_what_is_lost(tmp_path):
    clock = Clock()
    archive = opened(tmp_path, clock, buffer_bytes=10_000)
    (tmp_path / "observations").write_text("in the way")
    consume(archive, some_batches(200))
    stats = archive.stats()
    assert stats.buffered_bytes < 60_000
    assert stats.lost_segments > 0
    (tmp_path / "observations").unlink()
    clock.forward(60)
    consume(archive, some_batches(1, first=200))
    archive.flush()
    assert len(stored(tmp_path)) == 201 * 3 - archive.stats().lost_segments


def test_what_gathers_over_the_end_of_an_hour_is_written_hour_by_hour(tmp_path):
    clock = Clock()
    archive = opened(tmp_path, clock)
    (tmp_path / "observations").write_text("in the way")
    hour_nano = 3_600 * SECOND_NANO
    consume(archive, some_batches(2))
    consume(archive, some_batches(1, first=2, received=NOW + hour_nano))
    (tmp_path / "observations").unlink()
    clock.forward(31)
    archive.flush_due()
    assert files(tmp_path) == [
        "hour=2027-01-15T08/00000000000000000000-00000000000000002000.parquet",
        "hour=2027-01-15T09/00000000000000002000-00000000000000003000.parquet",
    ]
    later = Question(since_unix_nano=NOW + hour_nano)
    assert len(stored(tmp_path, later)) == 3
    assert (archive.cursor(), archive.stats().buffered_bytes, counted(archive)) == (3_000, 0, 9)


def test_a_real_full_disk_leaves_no_half_part(tmp_path):
    full = Path("/dev/full")
    archive = opened(tmp_path)
    consume(archive, some_batches(1))
    target = (
        tmp_path / "rollups" / "hour=2027-01-15T08" / "00000000000000000000-00000000000000001000.parquet.tmp"
    )
    target.parent.mkdir(parents=True)
    target.symlink_to(full)
    archive.flush()
    assert archive.stats().write_errors == 1
    assert files(tmp_path) == files(tmp_path, "rollups") == []
    target.unlink()
    archive.flush()
    assert len(stored(tmp_path)) == 3


@pytest.mark.parametrize("setting", sorted(ArchiveSettings.__dataclass_fields__))
def test_a_setting_out_of_range_is_refused_by_name_and_value(setting):
    with pytest.raises(ValueError, match=rf"archive\.{setting} must be > 0, got 0"):
        ArchiveSettings(**{setting: 0})

"""Parts: their names, the cursor, replay after a crash, and when one is written."""

import shutil
from dataclasses import replace

import numpy as np

from bench.fleet import SECOND_NANO, batch
from introspan_wire.codec import Schema
from tests.archives import NOW, Clock, consume, counted, files, opened, some_batches, stored


def test_a_part_is_named_by_hour_and_range_and_is_the_cursor(tmp_path):
    archive = opened(tmp_path)
    consume(archive, some_batches(3))
    assert archive.cursor() == 0
    archive.flush()
    name = "hour=2027-01-15T08/00000000000000000000-00000000000000003000.parquet"
    assert files(tmp_path) == files(tmp_path, "rollups") == [name]
    assert archive.cursor() == 3_000
    assert opened(tmp_path).cursor() == 3_000


def test_replay_after_a_crash_at_any_batch_gives_every_row_once(tmp_path):
    batches = some_batches(8)
    for crash in range(len(batches) + 1):
        folder = tmp_path / str(crash)
        archive = opened(folder, buffer_bytes=21_000)  # a part every few batches
        consume(archive, batches[:crash])
        again = opened(folder)  # the first is abandoned with what it had buffered
        consume(again, [one for one in batches if one.offset >= again.cursor()])
        again.flush()
        names = [row["request_id"] for row in stored(folder)]
        assert sorted(names) == sorted(name for one in batches for name in one.tables[0].request_id)
        assert counted(again) == 24


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


def test_a_part_is_written_sooner_where_every_batch_brings_columns_of_its_own(tmp_path):
    """As from a producer that lists its columns in another order each time."""
    archive = opened(tmp_path, buffer_bytes=1 << 20)
    rng = np.random.default_rng(3)
    for number, one in enumerate(some_batches(200)):
        (of,) = one.tables
        order = rng.permutation(len(of.schema.columns))
        columns = Schema(of.schema.kind, tuple(of.schema.columns[place] for place in order))
        changed = replace(of, schema=columns, values=np.ascontiguousarray(of.values[:, order]))
        archive.consume(batch(changed, number=number, received_unix_nano=NOW))
    wide = 256 * len(of.schema.columns)
    assert len(files(tmp_path)) >= 200 * wide // (1 << 20) > 1
    assert archive.stats().buffered_bytes < 1 << 20
    archive.flush()
    found = {one["request_id"]: len(one["values"]) for one in stored(tmp_path)}
    assert len(found) == 600
    assert archive.stats().buffered_bytes == 0


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


def test_a_clock_that_is_set_back_delays_neither_a_part_nor_another_attempt(tmp_path):
    clock = Clock()
    archive = opened(tmp_path, clock, flush_seconds=30.0)
    consume(archive, some_batches(1))
    archive.flush_due()
    assert files(tmp_path) == []
    (tmp_path / "schemas").write_text("a disk that refuses")
    clock.forward(31)
    archive.flush_due()
    assert archive.stats().write_errors == 1
    (tmp_path / "schemas").unlink()
    clock.forward(-7_200)
    archive.flush_due()
    assert len(files(tmp_path)) == 1
    consume(archive, some_batches(1, first=1))
    clock.forward(-7_200)
    archive.flush_due()
    assert len(files(tmp_path)) == 2

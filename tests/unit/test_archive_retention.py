"""What is deleted, and a disk that refuses."""

import os
from pathlib import Path

import numpy as np
import pytest

from bench.fleet import SECOND_NANO, batch, table
from introspan_collector.archive.observations import Question
from introspan_collector.archive.settings import ArchiveSettings
from introspan_wire.codec import Column, Schema
from introspan_wire.signals import Kind, Statistic
from tests.archives import NOW, Clock, consume, counted, files, opened, some_batches, stored


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


def test_the_oldest_rollups_are_deleted_beyond_a_size(tmp_path):
    clock = Clock()
    archive = opened(tmp_path, clock, rollup_max_bytes=1)
    for hour in range(3):
        consume(archive, some_batches(1, first=hour, received=clock.now))
        archive.flush()
        clock.forward(3_600)
    assert files(tmp_path, "rollups") == []
    assert len(files(tmp_path)) == 3


def of_layer(layer, number, received):
    columns = (Column("residual.turn", Statistic.MEAN, layer), Column("output.entropy", Statistic.MEAN))
    of = table(Schema(Kind.DECODED, columns), 2, np.random.default_rng(number), time_unix_nano=received)
    return batch(of, number=number, received_unix_nano=received)


def test_schemas_that_no_part_refers_to_any_more_are_deleted_and_the_others_still_read(tmp_path):
    clock = Clock()
    archive = opened(tmp_path, clock, max_age_seconds=7_200)
    for hour in range(6):
        for number, layer in enumerate((hour, 99)):  # one of this hour alone, and one of every hour
            archive.consume(of_layer(layer, 2 * hour + number, clock.now))
        archive.flush()
        clock.forward(3_600)
    assert len(files(tmp_path)) == 3
    assert len(files(tmp_path, "schemas")) == 4
    found = stored(tmp_path)
    assert sorted({value["layer"] for one in found for value in one["values"] if value["layer"]}) == [
        3,
        4,
        5,
        99,
    ]
    assert len(found) == 12
    on_disk = sum(path.stat().st_size for path in tmp_path.rglob("*.parquet"))
    assert archive.stats().bytes_kept == on_disk


def test_schemas_of_an_archive_from_before_they_were_dated_are_kept_while_parts_refer_to_them(tmp_path):
    clock = Clock()
    archive = opened(tmp_path, clock, max_age_seconds=7_200)
    archive.consume(of_layer(3, 0, clock.now))
    archive.flush()
    for path in (tmp_path / "schemas").iterdir():
        os.utime(path, ns=(0, 0))
    archive = opened(tmp_path, clock, max_age_seconds=7_200)
    clock.forward(61)
    archive.consume(of_layer(4, 1, clock.now))
    archive.flush()
    assert len(stored(tmp_path)) == 4


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

"""One-minute statistics: merged, selected, joined by hour, damaged."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from bench.fleet import SECOND_NANO, batch, origin
from tests.archives import NOW, Clock, consume, counted, files, opened, some_batches


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

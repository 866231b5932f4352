"""The log: what is written, and what a crash or a refusal leaves.

tests/property/test_log.py looks for what nobody thought of.
"""

import errno

import pytest

from introspan_collector.log.reader import Reader
from introspan_collector.log.record import HEADER_BYTES
from introspan_collector.log.segment import segment_name
from introspan_collector.testing import PowerLossError, VolatileDisk
from tests.logs import A, B, Clock, open_log, read_all, record


class Everything:
    """All that was written survives, but for a hole in the payloads."""

    def __init__(self, hole_at):
        self.hole_at = hole_at

    def survives(self):
        return True

    def bytes_of(self, written):
        return written[: self.hole_at] + bytes(1) + written[self.hole_at + 1 :]


def test_what_was_appended_is_read_in_order_across_segments():
    disk = VolatileDisk()
    log, sequences = open_log(disk, segment_bytes=100)
    for sequence in range(1, 8):
        log.append([record(A, sequence), record(B, sequence)])
        assert sequences.seen(A, sequence)
        assert not sequences.seen(A, sequence + 1)
    found, _ = read_all(disk, log.end)
    assert found == [(producer, sequence) for sequence in range(1, 8) for producer in (A, B)]
    assert len(disk.names()) == 7


def test_a_header_that_reached_the_disk_without_its_payload_does_not_count_as_seen():
    disk = VolatileDisk()
    log, _ = open_log(disk)
    disk.last_operation = "sync"
    with pytest.raises(PowerLossError):
        log.append([record(A, 1)])
    disk = disk.after_power_loss(Everything(hole_at=HEADER_BYTES + 2))
    log, sequences = open_log(disk)
    assert not sequences.seen(A, 1)
    assert log.end == 0
    assert log.torn_bytes == HEADER_BYTES + 7


def test_a_torn_record_between_two_whole_ones_is_skipped_and_the_later_one_kept():
    disk = VolatileDisk()
    log, _ = open_log(disk)
    disk.last_operation = "sync"
    with pytest.raises(PowerLossError):
        log.append([record(A, 1), record(B, 1)])
    disk = disk.after_power_loss(Everything(hole_at=HEADER_BYTES + 2))
    log, sequences = open_log(disk)
    assert (sequences.seen(A, 1), sequences.seen(B, 1)) == (False, True)
    found, reader = read_all(disk, log.end)
    assert found == [(B, 1)]
    assert reader.corrupt_bytes == HEADER_BYTES + 7


def test_a_torn_record_before_a_whole_one_does_not_count_as_seen_when_another_segment_follows():
    disk = VolatileDisk()
    log, _ = open_log(disk, segment_bytes=1)
    disk.last_operation = "sync"
    with pytest.raises(PowerLossError):
        log.append([record(A, 1), record(B, 1)])
    disk = disk.after_power_loss(Everything(hole_at=HEADER_BYTES + 2))
    log, _ = open_log(disk, segment_bytes=1)
    log.append([record(B, 2)])
    log, sequences = open_log(disk, segment_bytes=1)
    assert not sequences.seen(A, 1)
    log.append([record(A, 1)])
    assert read_all(disk, log.end)[0] == [(B, 1), (B, 2), (A, 1)]


class EverythingWritten:
    """Whatever was written survives, and no truncation."""

    def survives(self):
        return False

    def bytes_of(self, written):
        return written


def test_what_a_failed_group_left_behind_does_not_follow_a_part_of_what_replaces_it():
    disk = VolatileDisk()
    log, _ = open_log(disk)
    disk.refused = {"sync", "truncate"}
    with pytest.raises(OSError, match="no space"):
        log.append([record(B, 1), record(A, 1)])
    disk.refused = set()
    # All but the last bytes, which are those of the record that lies there.
    disk.power_steps = HEADER_BYTES + 3
    with pytest.raises(PowerLossError):
        log.append([record(A, 1)])
    disk = disk.after_power_loss(EverythingWritten())
    log, sequences = open_log(disk)
    assert not sequences.seen(A, 1)
    assert read_all(disk, log.end)[0] == []


def test_what_a_killed_process_wrote_is_synced_before_it_counts():
    disk = VolatileDisk()
    log, _ = open_log(disk)
    disk.last_operation = "sync"
    with pytest.raises(PowerLossError):
        log.append([record(A, 1)])
    disk.restart()
    _, sequences = open_log(disk)
    assert sequences.seen(A, 1)
    found, _ = read_all(VolatileDisk(disk.durable), log_end(disk))
    assert found == [(A, 1)]


def log_end(disk):
    return open_log(VolatileDisk(disk.durable))[0].end


def test_a_record_whose_sync_failed_is_neither_read_nor_found_after_a_restart():
    disk = VolatileDisk()
    log, _ = open_log(disk)
    log.append([record(A, 1)])
    disk.refused = {"sync", "truncate"}
    with pytest.raises(OSError, match="no space"):
        log.append([record(A, 2, b"refused")])
    disk.refused = set()
    log.append([record(B, 1)])
    assert read_all(disk, log.end)[0] == [(A, 1), (B, 1)]
    reopened, sequences = open_log(disk)
    assert not sequences.seen(A, 2)
    assert read_all(disk, reopened.end)[0] == [(A, 1), (B, 1)]


def test_what_a_failed_group_left_behind_does_not_follow_the_record_that_replaced_it():
    disk = VolatileDisk()
    log, _ = open_log(disk)
    log.append([record(A, 1)])
    disk.refused = {"sync", "truncate"}
    with pytest.raises(OSError, match="no space"):
        log.append([record(A, 2), record(B, 1)])
    disk.refused = set()
    log.append([record(B, 1)])
    log, _ = open_log(disk)
    assert read_all(disk, log.end)[0] == [(A, 1), (B, 1)]


def test_a_reader_in_the_segment_that_was_given_up_goes_on_in_the_one_that_replaced_it():
    disk = VolatileDisk()
    log, _ = open_log(disk)
    log.append([record(A, 1)])
    reader = Reader(disk, 0)
    assert reader.next_record(log.end).header.sequence == 1
    disk.refused = {"sync", "truncate"}
    with pytest.raises(OSError, match="no space"):
        log.append([record(A, 2, b"refused")])
    disk.refused = set()
    log.append([record(B, 7, b"replaced")])
    found = reader.next_record(log.end)
    assert (found.header.producer, found.header.sequence) == (B, 7)


def test_a_refused_write_leaves_no_trace_in_the_file():
    disk = VolatileDisk()
    log, _ = open_log(disk)
    log.append([record(A, 1)])
    size = disk.size(segment_name(0))
    disk.refused, disk.refused_after = {"write"}, 30
    with pytest.raises(OSError, match="no space"):
        log.append([record(A, 2)])
    assert disk.size(segment_name(0)) == size


def test_a_full_first_segment_is_used_again_once_there_is_space():
    disk = VolatileDisk()
    log, _ = open_log(disk)
    disk.refused, disk.refused_after = {"write", "truncate"}, 30
    with pytest.raises(OSError, match="no space"):
        log.append([record(A, 1)])
    disk.refused = set()
    log.append([record(A, 1)])
    assert disk.names() == [segment_name(0)]
    assert read_all(disk, log.end)[0] == [(A, 1)]


class NamelessDisk(VolatileDisk):
    """Makes a file, and then cannot say that its name survives a crash."""

    refuses = False

    def create(self, name):
        super().create(name)
        if self.refuses:
            raise OSError(errno.EMFILE, "too many open files")


def test_a_segment_that_was_made_in_part_hides_no_record_that_comes_after():
    disk, clock = NamelessDisk(), Clock()
    log, _ = open_log(disk, max_age_seconds=80, clock=clock)
    log.append([record(A, 1)])
    clock.now += 11  # an eighth of the age: time for another segment
    disk.refuses = True
    with pytest.raises(OSError, match="too many"):
        log.expire()
    with pytest.raises(OSError, match="too many"):
        log.append([record(A, 2)])
    disk.refuses = False
    log.append([record(A, 2)])
    assert read_all(disk, log.end)[0] == [(A, 1), (A, 2)]
    reopened, sequences = open_log(disk)
    assert sequences.seen(A, 2)
    assert read_all(disk, reopened.end)[0] == [(A, 1), (A, 2)]


def test_unsynced_records_are_synced_before_the_next_segment_begins():
    disk = VolatileDisk()
    log, _ = open_log(disk, segment_bytes=10, sync_each=False)
    log.append([record(A, 1)])
    log.append([record(A, 2)])
    _, sequences = open_log(VolatileDisk(disk.durable))
    assert sequences.seen(A, 1)
    assert not sequences.seen(A, 2)


def test_no_offset_that_a_reader_has_passed_is_used_again():
    disk = VolatileDisk()
    log, _ = open_log(disk, sync_each=False)
    log.append([record(A, 1), record(A, 2)])
    passed = log.end
    disk = VolatileDisk(disk.durable)
    log, _ = open_log(disk, not_before=passed)
    log.append([record(A, 1)])
    assert log.end > passed
    assert read_all(disk, log.end, passed)[0] == [(A, 1)]
    found, reader = read_all(disk, log.end, 0)
    assert found == [(A, 1)]
    assert reader.corrupt_bytes == passed

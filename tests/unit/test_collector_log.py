"""The log, one claim at a time; tests/property/test_log.py looks for what nobody thought of."""

import pytest
import structlog

from introspan_collector.log.appender import Appender
from introspan_collector.log.cursor import Cursor, DamagedCursorError, load_cursor, save_cursor
from introspan_collector.log.files import Disk
from introspan_collector.log.reader import Reader
from introspan_collector.log.record import HEADER_BYTES, Record, frame, header_of
from introspan_collector.log.retention import Retention
from introspan_collector.log.segment import segment_name
from introspan_collector.log.sequences import Sequences
from introspan_collector.testing import PowerLossError, VolatileDisk

A, B = b"a" * 16, b"b" * 16


class Clock:
    now = 1_000.0

    def __call__(self):
        return self.now


class Everything:
    """All that was written survives, but for a hole in the payloads."""

    def __init__(self, hole_at):
        self.hole_at = hole_at

    def survives(self):
        return True

    def bytes_of(self, written):
        return written[: self.hole_at] + bytes(1) + written[self.hole_at + 1 :]


def open_log(files, *, segment_bytes=10_000, max_bytes=10**9, max_age_seconds=1e9, clock=None, **options):
    sequences = Sequences(100)
    retention = Retention(max_bytes=max_bytes, max_age_seconds=max_age_seconds, clock=clock or Clock())
    return Appender(files, sequences, retention, segment_bytes=segment_bytes, **options), sequences


def record(producer, sequence, payload=b"payload", received_seconds=1_000):
    return Record(received_seconds * 10**9, producer, sequence, payload)


def read_all(files, end, offset=0):
    reader = Reader(files, offset)
    found = []
    while (item := reader.next_record(end)) is not None:
        found.append((item.header.producer, item.header.sequence))
    return found, reader


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


def test_bytes_that_look_like_a_record_inside_a_payload_are_not_taken_for_one():
    disk = VolatileDisk()
    log, _ = open_log(disk)
    inner = record(B, 9)
    forged = b"".join(frame(header_of(inner), offset) + inner.payload for offset in (0, HEADER_BYTES))
    log.append([record(A, 1, forged), record(A, 2)])
    disk.write(segment_name(0), 4, b"\xff\xff\xff\xff")
    found, reader = read_all(disk, log.end)
    assert found == [(A, 2)]
    assert reader.corrupt_bytes == HEADER_BYTES + len(forged)


def test_damage_longer_than_one_read_is_searched_to_its_end():
    disk = VolatileDisk()
    log, _ = open_log(disk)
    log.append([record(A, 1, bytes(3 * 2**20)), record(A, 2)])
    disk.write(segment_name(0), 4, b"\xff\xff\xff\xff")
    assert read_all(disk, log.end)[0] == [(A, 2)]


@pytest.mark.parametrize("position", range(HEADER_BYTES + 7))
def test_one_damaged_byte_costs_one_record_and_is_counted_and_logged(position):
    disk = VolatileDisk()
    log, _ = open_log(disk)
    for sequence in (1, 2, 3):
        log.append([record(A, sequence)])
    second = HEADER_BYTES + 7
    damaged = disk.read(segment_name(0), second + position, 1)[0] ^ 0xFF
    disk.write(segment_name(0), second + position, bytes([damaged]))
    with structlog.testing.capture_logs() as logs:
        found, reader = read_all(disk, log.end)
    assert found == [(A, 1), (A, 3)]
    assert reader.corrupt_bytes == second
    assert [(entry["offset"], entry["bytes"]) for entry in logs] == [(second, second)]


def test_retention_by_bytes_deletes_oldest_segments_and_a_slow_reader_jumps_and_counts():
    disk = VolatileDisk()
    log, _ = open_log(disk, segment_bytes=100, max_bytes=300)
    for sequence in range(1, 11):
        log.append([record(A, sequence)])
        log.append([record(B, sequence)])
    log.expire()
    assert sum(disk.size(name) for name in disk.names()) <= 300
    found, reader = read_all(disk, log.end)
    assert found[-1] == (B, 10)
    assert reader.expired_bytes == int(disk.names()[0]) > 0


def test_a_reader_whose_open_segment_is_deleted_goes_on_with_the_next():
    disk = VolatileDisk()
    log, _ = open_log(disk, segment_bytes=100, max_bytes=250)
    log.append([record(A, 1), record(B, 1)])
    reader = Reader(disk, 0)
    assert reader.next_record(log.end).header.producer == A
    end = log.end
    for sequence in range(2, 8):
        log.append([record(A, sequence), record(B, sequence)])
    log.expire()
    assert reader.next_record(end) is None
    assert reader.next_record(log.end).header.sequence > 2
    assert reader.expired_bytes > 0


def test_retention_by_age_deletes_even_what_the_newest_segment_held():
    disk, clock = VolatileDisk(), Clock()
    log, _ = open_log(disk, max_age_seconds=80, clock=clock)
    log.append([record(A, 1)])
    clock.now += 11
    log.expire()
    clock.now += 81
    log.expire()
    assert disk.names() == [segment_name(log.end)]
    assert read_all(disk, log.end)[1].expired_bytes == log.end


def test_sequences_survive_a_restart_and_forget_the_producer_silent_longest():
    sequences = Sequences(2)
    for producer in (A, B, A, b"c" * 16):
        sequences.advance(producer, 5)
    assert sequences.seen(A, 5)
    assert not sequences.seen(B, 5)
    assert sequences.evicted == 1


def test_a_damaged_cursor_is_reported(tmp_path):
    disk = Disk(tmp_path)
    assert load_cursor(disk, "aggregate") is None
    save_cursor(disk, "aggregate", Cursor(77, b"state"))
    assert load_cursor(disk, "aggregate") == Cursor(77, b"state")
    content = bytearray((tmp_path / "aggregate").read_bytes())
    content[-1] ^= 1
    (tmp_path / "aggregate").write_bytes(content)
    with pytest.raises(DamagedCursorError, match="aggregate fails its checksum"):
        load_cursor(disk, "aggregate")


def test_a_reader_of_a_real_disk_can_neither_write_nor_create_anything(tmp_path):
    log, _ = open_log(Disk(tmp_path / "log"))
    log.append([record(A, 1)])
    log.close()
    disk = Disk(tmp_path / "log", read_only=True)
    assert read_all(disk, log.end)[0] == [(A, 1)]
    with pytest.raises(OSError, match="Bad file descriptor"):
        disk.write(segment_name(0), 0, b"x")
    Disk(tmp_path / "missing", read_only=True)
    assert not (tmp_path / "missing").exists()


def test_the_log_on_a_real_disk_survives_being_cut_anywhere(tmp_path):
    disk = Disk(tmp_path / "whole")
    log, _ = open_log(disk)
    ends = []
    for sequence in range(1, 4):
        log.append([record(A, sequence, b"p" * sequence)])
        ends.append(log.end)
    log.close()
    content = (tmp_path / "whole" / segment_name(0)).read_bytes()
    for cut in range(len(content) + 1):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / segment_name(0)).write_bytes(content[:cut])
        disk = Disk(folder)
        log, _ = open_log(disk)
        whole = sum(end <= cut for end in ends)
        assert read_all(disk, log.end)[0] == [(A, sequence) for sequence in range(1, whole + 1)]
        assert log.torn_bytes == cut - log.end
        log.close()

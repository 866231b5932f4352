"""Records that are handed over in memory: the same records in the same order, whatever finds room there."""

import pytest

from introspan_collector.log.appender import Appender
from introspan_collector.log.reader import Reader
from introspan_collector.log.recent import Recent
from introspan_collector.log.record import HEADER_BYTES, Record
from introspan_collector.log.retention import Retention
from introspan_collector.log.segment import segment_name
from introspan_collector.log.sequences import Sequences
from introspan_collector.testing import VolatileDisk

PRODUCER = b"p" * 16
PAYLOAD = b"payload"


def open_log(disk, recent, segment_bytes=10_000):
    retention = Retention(max_bytes=10**9, max_age_seconds=1e9)
    return Appender(disk, Sequences(10), retention, segment_bytes=segment_bytes, recent=recent)


def record(sequence, *, decoded=True):
    return Record(10**9, PRODUCER, sequence, PAYLOAD, f"decoded {sequence}" if decoded else None)


def read(reader, end):
    """(sequence, what it was decoded to) of every record up to the end."""
    found = []
    while (item := reader.next_record(end)) is not None:
        found.append((item.header.sequence, item.decoded))
    return found


def test_a_reader_close_behind_gets_what_was_decoded_and_needs_no_file():
    disk, recent = VolatileDisk(), Recent(1_000)
    log = open_log(disk, recent, segment_bytes=100)
    for sequence in (1, 2, 3):
        log.append([record(sequence)])
    reader = Reader(VolatileDisk(), 0, recent)
    assert read(reader, log.end) == [(1, "decoded 1"), (2, "decoded 2"), (3, "decoded 3")]
    assert (reader.offset, recent.held_bytes) == (log.end, 0)


@pytest.mark.parametrize("room", range(0, 6 * len(PAYLOAD), 3))
def test_what_finds_no_room_is_read_from_the_log_in_its_place(room):
    disk, recent = VolatileDisk(), Recent(room)
    log = open_log(disk, recent, segment_bytes=100)
    reader = Reader(disk, 0, recent)
    held = room // len(PAYLOAD)
    for first in (1, 6):
        for sequence in range(first, first + 5):
            log.append([record(sequence)])
            assert recent.held_bytes <= room
        found = read(reader, log.end)
        assert [sequence for sequence, _ in found] == list(range(first, first + 5))
        assert [decoded is not None for _, decoded in found] == [number < held for number in range(5)]


def test_a_reader_that_begins_earlier_reads_the_log_up_to_what_is_in_memory():
    disk, recent = VolatileDisk(), Recent(1_000)
    open_log(disk, Recent(0)).append([record(1), record(2)])
    log = open_log(disk, recent)
    log.append([record(3)])
    assert read(Reader(disk, 0, recent), log.end) == [(1, None), (2, None), (3, "decoded 3")]


def test_a_reader_that_begins_later_lets_go_of_what_lies_before():
    disk, recent = VolatileDisk(), Recent(1_000)
    log = open_log(disk, recent)
    log.append([record(1), record(2)])
    reader = Reader(disk, HEADER_BYTES + len(PAYLOAD), recent)
    assert read(reader, log.end) == [(2, "decoded 2")]
    assert recent.held_bytes == 0


def test_records_beyond_the_end_that_is_known_wait():
    disk, recent = VolatileDisk(), Recent(1_000)
    log = open_log(disk, recent)
    log.append([record(1)])
    end = log.end
    log.append([record(2)])
    reader = Reader(disk, 0, recent)
    assert read(reader, end) == [(1, "decoded 1")]
    assert read(reader, log.end) == [(2, "decoded 2")]


def test_a_record_that_could_not_be_appended_is_not_handed_over():
    disk, recent = VolatileDisk(), Recent(1_000)
    log = open_log(disk, recent)
    disk.refused = {"sync"}
    with pytest.raises(OSError, match="no space"):
        log.append([record(1)])
    disk.refused = set()
    assert recent.held_bytes == 0
    log.append([Record(10**9, PRODUCER, 2, b"another", "decoded 2")])
    assert read(Reader(disk, 0, recent), log.end) == [(2, "decoded 2")]


def test_a_record_that_nobody_decoded_is_read_from_the_log():
    disk, recent = VolatileDisk(), Recent(1_000)
    log = open_log(disk, recent)
    log.append([record(1, decoded=False), record(2)])
    found = Reader(disk, 0, recent).next_record(log.end)
    assert (found.payload, found.decoded) == (PAYLOAD, None)


def test_damage_on_the_disk_does_not_reach_what_is_in_memory():
    disk, recent = VolatileDisk(), Recent(1_000)
    log = open_log(disk, recent)
    log.append([record(1), record(2)])
    disk.write(segment_name(0), 0, b"damage")
    reader = Reader(disk, 0, recent)
    assert read(reader, log.end) == [(1, "decoded 1"), (2, "decoded 2")]
    assert reader.corrupt_bytes == 0

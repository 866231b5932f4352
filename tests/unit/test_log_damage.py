"""The log: damage and retention, and readers that meet them."""

import pytest
import structlog

from introspan_collector.log.reader import Reader
from introspan_collector.log.record import HEADER_BYTES, frame, header_of
from introspan_collector.log.segment import segment_name
from introspan_collector.testing import VolatileDisk
from tests.logs import A, B, Clock, open_log, read_all, record


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

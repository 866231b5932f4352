"""Records in, logs on disks that fail as they are told to out."""

from introspan_collector.log.appender import Appender
from introspan_collector.log.reader import Reader
from introspan_collector.log.record import Record
from introspan_collector.log.retention import Retention
from introspan_collector.log.sequences import Sequences

A, B = b"a" * 16, b"b" * 16


class Clock:
    now = 1_000.0

    def __call__(self):
        return self.now


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

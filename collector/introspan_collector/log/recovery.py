"""The files a crash left behind in, a log that can be written to out."""

from dataclasses import dataclass
from itertools import pairwise

from introspan_collector.log.files import Files
from introspan_collector.log.segment import Extent, find_records, segment_name, segment_starts
from introspan_collector.log.sequences import Sequences


@dataclass(frozen=True, slots=True)
class Recovered:
    """The segments, the last of them to be written to, and the bytes of half-written records cut off."""

    segments: list[Extent]
    torn_bytes: int


def recover(files: Files, sequences: Sequences, *, not_before: int, now_unix_nano: int) -> Recovered:
    """Cuts a half-written tail off, relearns the sequences and makes sure that a segment to write to exists.

    The next record gets an offset of at least not_before: a reader that has read further than what is left
    of the log must not find new records at offsets it has passed.
    """
    starts = segment_starts(files)
    segments = [
        _walk(files, start, min(start + files.size(segment_name(start)), next_start), sequences)
        for start, next_start in pairwise(starts)
    ]
    torn_bytes = 0
    if starts:
        last = _walk(files, starts[-1], None, sequences)
        torn_bytes = _cut(files, last)
        segments.append(last)
    if not segments or segments[-1].end < not_before:
        files.create(segment_name(not_before))
        segments.append(Extent(not_before, not_before, now_unix_nano, now_unix_nano))
    return Recovered(segments, torn_bytes)


def _walk(files: Files, start: int, stop: int | None, sequences: Sequences) -> Extent:
    # Only the last segment (stop=None) can hold bytes that were never synced, so only there is a sound header
    # no proof that the payload reached the disk: taking its sequence for seen would lose the second attempt.
    last = stop is None
    end = start if stop is None else stop
    times = []
    written_end = start + files.size(segment_name(start)) if stop is None else stop
    for found in find_records(files, start, written_end, payload=last):
        if found.payload is None:
            continue
        sequences.advance(found.header.producer, found.header.sequence)
        times.append(found.header.received_unix_nano)
        if last:
            end = found.next_offset
    return Extent(start, end, min(times, default=0), max(times, default=0))


def _cut(files: Files, last: Extent) -> int:
    name = segment_name(last.start)
    torn_bytes = files.size(name) - (last.end - last.start)
    if torn_bytes:
        files.truncate(name, last.end - last.start)
    # What a killed process wrote may still be in the page cache alone; from here on it counts as durable.
    files.sync(name)
    return torn_bytes

"""The files a crash left behind in, a log that can be written to out."""

from dataclasses import dataclass
from itertools import pairwise

from introspan_collector.log.files import Files
from introspan_collector.log.record import HEADER_BYTES
from introspan_collector.log.segment import Extent, find_records, segment_name, segment_starts
from introspan_collector.log.sequences import Sequences


@dataclass(frozen=True, slots=True)
class Recovered:
    """The segments, the last of them to be written to, and the bytes of half-written records cut off."""

    segments: list[Extent]
    torn_bytes: int


def recover(files: Files, sequences: Sequences, *, not_before: int, now_unix_nano: int) -> Recovered:
    """Cuts a half-written tail off, relearns the sequences and makes sure that a segment to write to exists.

    A damaged record before sound ones loses its header.

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
        last, damaged = _walk_last(files, starts[-1], sequences)
        torn_bytes = _mend(files, last, damaged)
        segments.append(last)
    if not segments or segments[-1].end < not_before:
        files.create(segment_name(not_before))
        segments.append(Extent(not_before, not_before, now_unix_nano, now_unix_nano))
    return Recovered(segments, torn_bytes)


def _walk(files: Files, start: int, stop: int, sequences: Sequences) -> Extent:
    """A segment that was synced: a sound header is proof that its payload was acknowledged."""
    times = []
    for found in find_records(files, start, stop, payload=False):
        sequences.advance(found.header.producer, found.header.sequence)
        times.append(found.header.received_unix_nano)
    return Extent(start, stop, min(times, default=0), max(times, default=0))


def _walk_last(files: Files, start: int, sequences: Sequences) -> tuple[Extent, list[int]]:
    """The segment that can hold bytes that were never synced, and the offsets of its records with damaged payloads.

    There a sound header is no proof that the payload reached the disk: taking its sequence for seen would lose the
    second attempt.
    """
    end, times, damaged = start, [], []
    for found in find_records(files, start, start + files.size(segment_name(start))):
        if found.payload is None:
            damaged.append(found.offset)
            continue
        sequences.advance(found.header.producer, found.header.sequence)
        times.append(found.header.received_unix_nano)
        end = found.next_offset
    return Extent(start, end, min(times, default=0), max(times, default=0)), damaged


def _mend(files: Files, last: Extent, damaged: list[int]) -> int:
    """Makes of the last segment one that was synced; returns how many bytes of half-written records were cut off."""
    name = segment_name(last.start)
    for offset in damaged:
        # Once another segment follows, its header would be taken for proof.
        if offset < last.end:
            files.write(name, offset - last.start, bytes(HEADER_BYTES))
    torn_bytes = files.size(name) - (last.end - last.start)
    if torn_bytes:
        files.truncate(name, last.end - last.start)
    # What a killed process wrote may still be in the page cache alone; from here on it counts as durable.
    files.sync(name)
    return torn_bytes

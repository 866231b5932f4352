"""A file of the log in, its records and its damage out."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from introspan_collector.log.files import Files
from introspan_collector.log.record import HEADER_BYTES, MAGIC, Header, parse_header

_NAME_DIGITS = 20
_SEARCH_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Found:
    """A record of which at least the header is sound; payload is None where it fails its checksum.

    decoded is what the record was appended with, if that is still in memory; the payload is then empty.
    """

    offset: int
    header: Header
    payload: bytes | None
    decoded: object = None

    @property
    def next_offset(self) -> int:
        """Offset of the byte after the record."""
        return self.offset + self.header.record_bytes


@dataclass(frozen=True, slots=True)
class Extent:
    """Which offsets a segment holds, and when its first and last records were received (0: it has none)."""

    start: int
    end: int
    first_unix_nano: int
    last_unix_nano: int


def segment_name(start: int) -> str:
    """Name of the file whose first byte is the log's byte number start."""
    return f"{start:0{_NAME_DIGITS}d}"


def segment_starts(files: Files) -> list[int]:
    """Start offsets of the log's files, ascending. A segment ends where the next one begins, or before."""
    return sorted(int(name) for name in files.names() if len(name) == _NAME_DIGITS and name.isdigit())


def find_record(files: Files, start: int, offset: int, end: int, *, payload: bool = True) -> Found | None:
    """The first record at or after an offset of the segment at start; None if none lies before end.

    Where the bytes at the offset are no record, looks for the next sound header. With payload=False the
    payload is neither read nor checked, and Found.payload is empty.
    """
    name = segment_name(start)
    while offset + HEADER_BYTES <= end:
        header = parse_header(files.read(name, offset - start, HEADER_BYTES), 0, offset)
        if header is not None and offset + header.record_bytes <= end:
            data = _payload(files, name, offset - start, header) if payload else b""
            return Found(offset, header, data)
        offset = _next_magic(files, start, offset + 1, end)
    return None


def find_records(files: Files, start: int, end: int, *, payload: bool = True) -> Iterator[Found]:
    """Every record of a segment, up to the offset end."""
    found = find_record(files, start, start, end, payload=payload)
    while found is not None:
        yield found
        found = find_record(files, start, found.next_offset, end, payload=payload)


def _payload(files: Files, name: str, position: int, header: Header) -> bytes | None:
    data = files.read(name, position + HEADER_BYTES, header.payload_bytes)
    sound = len(data) == header.payload_bytes and zlib.crc32(data) == header.payload_crc32
    return data if sound else None


def _next_magic(files: Files, start: int, offset: int, end: int) -> int:
    name = segment_name(start)
    while offset < end:
        data = files.read(name, offset - start, min(_SEARCH_BYTES, end - offset))
        position = data.find(MAGIC)
        if position >= 0:
            return offset + position
        # The magic may lie across the border of two reads.
        offset += max(len(data) - len(MAGIC) + 1, 1)
    return end

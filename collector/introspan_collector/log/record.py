"""A record and its place in the log in, its header as bytes out — and back."""

import struct
import zlib
from dataclasses import dataclass
from typing import NamedTuple

MAGIC = b"\xabIL1"
_PREFIX = struct.Struct("<4sI")
_FIELDS = struct.Struct("<IIQQ16s")
_OFFSET = struct.Struct("<Q")
HEADER_BYTES = _PREFIX.size + _FIELDS.size
"""Bytes a record takes in the log beside its payload."""

MAX_PAYLOAD_BYTES = 16 * 2**20
"""A header that claims more than this is damaged."""


@dataclass(frozen=True, slots=True)
class Record:
    """One accepted request. payload is the request as it arrived; producer has 16 bytes.

    decoded is what was already made of the payload, for readers in the same process. It is not written.
    """

    received_unix_nano: int
    producer: bytes
    sequence: int
    payload: bytes
    decoded: object = None


class Header(NamedTuple):
    """What the log knows of a record without its payload."""

    payload_crc32: int
    payload_bytes: int
    received_unix_nano: int
    sequence: int
    producer: bytes

    @property
    def record_bytes(self) -> int:
        """Bytes of header and payload together."""
        return HEADER_BYTES + self.payload_bytes


def header_of(record: Record) -> Header:
    """What the log will know of a record."""
    payload = record.payload
    crc32 = zlib.crc32(payload)
    return Header(crc32, len(payload), record.received_unix_nano, record.sequence, record.producer)


def frame(header: Header, offset: int) -> bytes:
    """A header as it lies in the log at an offset; the payload follows."""
    fields = _FIELDS.pack(*header)
    return _PREFIX.pack(MAGIC, _header_crc32(fields, offset)) + fields


def parse_header(data: bytes, position: int, offset: int) -> Header | None:
    """The header at a position of data, which lies at an offset of the log; None where none is valid."""
    if len(data) - position < HEADER_BYTES:
        return None
    magic, crc32 = _PREFIX.unpack_from(data, position)
    fields = data[position + _PREFIX.size : position + HEADER_BYTES]
    if magic != MAGIC or crc32 != _header_crc32(fields, offset):
        return None
    header = Header._make(_FIELDS.unpack(fields))
    return header if header.payload_bytes <= MAX_PAYLOAD_BYTES else None


def _header_crc32(fields: bytes, offset: int) -> int:
    # The offset is part of the checksum, so that bytes which merely look like a record (inside a payload, or
    # left over from an earlier file) are not taken for one while looking for the next record after damage.
    return zlib.crc32(fields, zlib.crc32(_OFFSET.pack(offset)))

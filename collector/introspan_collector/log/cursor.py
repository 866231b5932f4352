"""A position in the log and the state that belongs to it in, one small file out — and back."""

import struct
import zlib
from dataclasses import dataclass

from introspan_collector.log.files import Files

_HEADER = struct.Struct("<4sIQ")
_MAGIC = b"\xabIC1"


class DamagedCursorError(ValueError):
    """The file of a cursor fails its checksum."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a reader goes on: everything before offset is contained in state."""

    offset: int
    state: bytes = b""


def save_cursor(files: Files, name: str, cursor: Cursor) -> None:
    """Writes a cursor so that a crash leaves the old one or the new one, never a mixture."""
    crc32 = zlib.crc32(cursor.state, cursor.offset & 0xFFFFFFFF)
    files.replace(name, _HEADER.pack(_MAGIC, crc32, cursor.offset) + cursor.state)


def load_cursor(files: Files, name: str) -> Cursor | None:
    """The cursor last saved under a name; None if there is none. Raises DamagedCursorError."""
    if name not in files.names():
        return None
    data = files.read(name, 0, files.size(name))
    if len(data) < _HEADER.size:
        raise DamagedCursorError(f"{name} has {len(data)} bytes, too few for a cursor")
    magic, crc32, offset = _HEADER.unpack_from(data)
    state = data[_HEADER.size :]
    if magic != _MAGIC or crc32 != zlib.crc32(state, offset & 0xFFFFFFFF):
        raise DamagedCursorError(f"{name} fails its checksum")
    return Cursor(offset, state)

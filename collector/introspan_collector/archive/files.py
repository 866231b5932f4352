"""Log offsets and hours in, file names out; and files that are either whole or absent."""

import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

_NAME = re.compile(r"(\d{20})-(\d{20})\.parquet")
_TEMPORARY = ".tmp"


class Part(NamedTuple):
    """A Parquet file with what the log held from first up to (not including) end. Sorts by log order."""

    first: int
    end: int
    path: Path


def hour_of(unix_nano: int) -> str:
    """The hour a time lies in, as in the name of its folder: 2026-01-31T17 (UTC)."""
    return datetime.fromtimestamp(unix_nano // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H")


def hour_start(part: Part) -> int:
    """When the hour of a part began, in Unix nanoseconds; hour_of() of it is the hour."""
    began = datetime.strptime(f"{part.path.parent.name}+0000", "hour=%Y-%m-%dT%H%z")
    return int(began.timestamp()) * 1_000_000_000


def part_path(root: Path, hour: str, first: int, end: int) -> Path:
    """Where the part with a range of the log lies."""
    return root / f"hour={hour}" / f"{first:020d}-{end:020d}.parquet"


def parts(root: Path, since_hour: str = "") -> list[Part]:
    """Every whole part below a folder, from an hour on, in log order; without those that a wider one contains."""
    widest: list[Part] = []
    for part in sorted(_files(root, since_hour), key=lambda part: (part.first, -part.end)):
        if not widest or part.end > widest[-1].end:
            widest.append(part)
    return widest


def contained(root: Path) -> list[Part]:
    """Parts that a wider one contains: what was left when a crash came between joining parts and deleting them."""
    return sorted(set(_files(root)) - set(parts(root)))


def _files(root: Path, since_hour: str = "") -> Iterator[Part]:
    for path in root.glob("hour=*/*.parquet"):
        match = _NAME.fullmatch(path.name)
        if match and path.parent.name >= f"hour={since_hour}":
            yield Part(int(match[1]), int(match[2]), path)


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Has a file written under a temporary name, and renames it when it is on the disk. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + _TEMPORARY)
    write(temporary)
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)
    _sync(path.parent.parent)


def unfinished(root: Path) -> Iterator[Path]:
    """Files that a crash left half written."""
    yield from root.rglob(f"*{_TEMPORARY}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Parts in, the ones that are too old or too many deleted."""

from collections.abc import Iterable
from pathlib import Path

from introspan_collector.archive.files import hour_of, parts


def delete_before(root: Path, unix_nano: int, keep: Path | None) -> int:
    """Deletes parts of hours that ended before a time, but never `keep`; returns the bytes deleted."""
    hour = f"hour={hour_of(unix_nano)}"
    return _delete(part.path for part in parts(root) if part.path.parent.name < hour and part.path != keep)


def delete_beyond(root: Path, max_bytes: int, keep: Path | None) -> int:
    """Deletes the oldest parts until the others have at most max_bytes; returns the bytes deleted."""
    found = parts(root)
    sizes = [part.path.stat().st_size for part in found]
    excess = sum(sizes) - max_bytes
    doomed = []
    for part, size in zip(found, sizes, strict=True):
        if excess <= 0:
            break
        if part.path != keep:
            doomed.append(part.path)
            excess -= size
    return _delete(doomed)


def _delete(paths: Iterable[Path]) -> int:
    deleted = 0
    for path in list(paths):
        deleted += path.stat().st_size
        path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    return deleted

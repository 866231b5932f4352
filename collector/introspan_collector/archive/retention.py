"""Parts, rollups and schemas in, those that are too old, too many or of no use any more deleted."""

from collections.abc import Iterable
from pathlib import Path

from introspan_collector.archive.files import hour_of, hour_start, parts
from introspan_collector.archive.schemas import Schemas
from introspan_collector.archive.settings import ArchiveSettings


class Retention:
    """Keeps an archive within the settings' ages and bytes. Raises OSError."""

    def __init__(
        self, observations: Path, rollups: Path, schemas: Schemas, settings: ArchiveSettings
    ) -> None:
        self._observations = observations
        self._rollups = rollups
        self._schemas = schemas
        self._settings = settings

    def delete(self, now_unix_nano: int) -> int:
        """Deletes what is too old or too much, but never the newest part, the cursor; returns the bytes deleted."""
        settings = self._settings
        newest = max(parts(self._observations), default=None)
        keep = None if newest is None else newest.path
        oldest, oldest_rollup = (
            now_unix_nano - int(seconds * 1e9)
            for seconds in (settings.max_age_seconds, settings.rollup_max_age_seconds)
        )
        return (
            _delete_before(self._observations, oldest, keep)
            + _delete_before(self._rollups, oldest_rollup, None)
            + _delete_beyond(self._observations, settings.max_bytes, keep)
            + _delete_beyond(self._rollups, settings.rollup_max_bytes, None)
            + self._delete_schemas()
        )

    def kept_bytes(self) -> int:
        """Bytes of everything that is there."""
        kept = [part.path for root in (self._observations, self._rollups) for part in parts(root)]
        return sum(path.stat().st_size for path in kept) + self._schemas.size_bytes()

    def _delete_schemas(self) -> int:
        left = [hour_of(hour_start(part)) for part in parts(self._observations)]
        return self._schemas.delete_before(min(left)) if left else 0


def _delete_before(root: Path, unix_nano: int, keep: Path | None) -> int:
    """Deletes parts of hours that ended before a time, but never `keep`; returns the bytes deleted."""
    hour = f"hour={hour_of(unix_nano)}"
    return _delete(part.path for part in parts(root) if part.path.parent.name < hour and part.path != keep)


def _delete_beyond(root: Path, max_bytes: int, keep: Path | None) -> int:
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

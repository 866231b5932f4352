"""Files of the archive in, of which some may be damaged; what all others hold out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import duckdb
import structlog

_log = structlog.get_logger(__name__)

_Found = TypeVar("_Found")


class Damage:
    """Remembers files that cannot be read, and says so of each once. Safe for use by several threads."""

    def __init__(self) -> None:
        self._found: set[Path] = set()

    def __len__(self) -> int:
        return len(self._found)

    def __contains__(self, path: object) -> bool:
        return path in self._found

    def read(
        self,
        files: Callable[[], Sequence[Path]],
        read: Callable[[list[Path]], _Found],
        probe: Callable[[Path], object] | None = None,
    ) -> _Found:
        """What is read of those files that can be read.

        files: lists them, anew for each attempt, since retention may have deleted one meanwhile. probe: reads one as
        far as read does, where read cannot be asked for one alone. Raises duckdb.Error for what is no file's fault.
        """
        for attempts_left in (2, 1, 0):
            some = [path for path in files() if path not in self._found]
            try:
                return read(some)
            except duckdb.Error:
                if not attempts_left:
                    raise
            for path in some:
                try:
                    _ = read([path]) if probe is None else probe(path)
                except duckdb.Error as error:
                    self.note(path, error)
        raise AssertionError("unreachable")

    def note(self, path: Path, error: duckdb.Error) -> None:
        """Takes a file for damaged, unless it is gone."""
        if path.exists() and path not in self._found:
            self._found.add(path)
            _log.error("archive has a damaged file, which is left out", path=str(path), error=str(error))

"""A consumer that keeps its state in memory in; the same, saved together with the place it has read to, out."""

import time
from collections.abc import Callable

import structlog

from introspan_collector.log.cursor import Cursor, DamagedCursorError, load_cursor, save_cursor
from introspan_collector.log.files import Disk
from introspan_collector.model import Checkpointed

_log = structlog.get_logger(__name__)


class Checkpoint:
    """Restores a consumer when it is made; `start` is where it has read to."""

    def __init__(
        self,
        name: str,
        consumer: Checkpointed,
        files: Disk,
        interval_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.consumer = consumer
        self._files = files
        self._interval_seconds = interval_seconds
        self._monotonic = monotonic
        self._saved_at = monotonic()
        self.start = self._restore()

    def save(self, offset: int, *, at_once: bool = False) -> None:
        """Saves what the consumer knows after everything before offset, if it is time to or must be done at once."""
        now = self._monotonic()
        if not at_once and now - self._saved_at < self._interval_seconds:
            return
        self._saved_at = now
        # While another consumer catches up, the feed is at an offset that this one has long passed.
        reached = max(offset, self.start)
        save_cursor(self._files, self.name, Cursor(reached, self.consumer.snapshot()))

    def _restore(self) -> int:
        try:
            cursor = load_cursor(self._files, self.name)
            if cursor is None:
                return 0
            self.consumer.restore(cursor.state)
        except (DamagedCursorError, ValueError) as error:
            # The log still holds what retention kept of it: start over from its beginning.
            _log.error(f"{self.name} starts over from the beginning of the log", error=str(error))
            return 0
        return cursor.offset

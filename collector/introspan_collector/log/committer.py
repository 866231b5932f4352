"""Single records from any thread in, groups appended to the log and answers to each record out."""

import threading
import time
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue

import structlog

from introspan_collector.log.appender import Appender
from introspan_collector.log.record import Record
from introspan_collector.log.sequences import Sequences

_log = structlog.get_logger(__name__)

Done = Callable[[Exception | None], None]
"""Called from the committer's thread once a record is in the log, or with the reason why it is not."""

_GROUP_RECORDS = 1024
# While records come from several producers at once, more are on their way: one sync serves them all.
_GATHER_SECONDS = 0.003


class Committer:
    """Group commit: one thread appends whatever arrived while it appended the group before, and a moment after.

    A record that comes alone does not wait for others.

    With interval_seconds set, the answers do not wait for the disk: a loss of power loses up to that much.
    """

    def __init__(
        self,
        appender: Appender,
        sequences: Sequences,
        *,
        interval_seconds: float | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._appender = appender
        self._sequences = sequences
        self._interval_seconds = interval_seconds
        self._monotonic = monotonic
        self._queue: SimpleQueue[tuple[Record, Done] | None] = SimpleQueue()
        self._sleep = sleep
        self._synced_at = monotonic()
        self._crowded = False
        self._failing = False
        self.grown = threading.Event()
        """Set whenever the log has grown; a reader clears it before it looks."""
        self.write_errors = 0
        self._thread = threading.Thread(target=self._run, name="introspan-log", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """False once nothing is appended any more."""
        return self._thread.is_alive()

    def append(
        self,
        received_unix_nano: int,
        producer: bytes,
        sequence: int,
        payload: bytes,
        done: Done,
        decoded: object = None,
    ) -> None:
        """Puts a record in line, with what was already made of its payload. The caller bounds how much waits."""
        self._queue.put((Record(received_unix_nano, producer, sequence, payload, decoded), done))

    def seen(self, producer: bytes, sequence: int) -> bool:
        """True if this batch, or a later one of the producer, is in the log."""
        return self._sequences.seen(producer, sequence)

    def close(self) -> None:
        """Appends what is in line, then ends the thread and closes the log."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            group, closing = self._next_group()
            self._crowded = len(group) > 1
            if group:
                self._append(group)
            self._attempt(self._upkeep)
        self._attempt(self._appender.close)

    def _next_group(self) -> tuple[list[tuple[Record, Done]], bool]:
        group: list[tuple[Record, Done]] = []
        try:
            item = self._queue.get(timeout=self._interval_seconds or 1.0)
            if self._crowded:
                self._sleep(_GATHER_SECONDS)
            while item is not None:
                group.append(item)
                if len(group) == _GROUP_RECORDS:
                    return group, False
                item = self._queue.get_nowait()
        except Empty:
            return group, False
        return group, True

    def _append(self, group: list[tuple[Record, Done]]) -> None:
        error = self._attempt(lambda: self._appender.append([record for record, _ in group]))
        if error is None and self._failing:
            self._failing = False
            _log.info("the log is written again")
        self.grown.set()
        for _, done in group:
            self._attempt(partial(done, error))

    def _upkeep(self) -> None:
        self._appender.expire()
        if self._interval_seconds is None:
            return
        if self._monotonic() - self._synced_at >= self._interval_seconds:
            self._synced_at = self._monotonic()
            self._appender.sync()

    def _attempt(self, operation: Callable[[], None]) -> Exception | None:
        try:
            operation()
        except Exception as error:  # noqa: BLE001 whoever waits for an answer would wait for ever
            if not self._failing:
                _log.error("the log cannot be written; batches are refused until it can", exc_info=error)
            self._failing = True
            self.write_errors += 1
            return error
        return None

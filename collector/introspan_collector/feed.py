"""Records of the log in, batches to every consumer out, each exactly once from where it stopped."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from introspan_collector.log.reader import Reader
from introspan_collector.log.segment import Found
from introspan_collector.model import Batch, Consumer
from introspan_collector.records import to_batch

_log = structlog.get_logger(__name__)

_IDLE_SECONDS = 0.25
# Reading after every group commit would contend with the acknowledgements for the interpreter.
_GATHER_SECONDS = 0.05
_SAY_AGAIN_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Branch:
    """A consumer and the offset before which it has already consumed everything."""

    name: str
    consumer: Consumer
    start: int


class Feed:
    """One thread that reads the log and hands each batch, decoded once, to every consumer in turn."""

    def __init__(
        self,
        reader: Reader,
        branches: Sequence[Branch],
        *,
        log_end: Callable[[], int],
        grown: threading.Event,
        upkeep: Mapping[str, Callable[[], None]],
        save: Callable[[int], None],
        save_seconds: float,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader = reader
        self._branches = tuple(branches)
        self._log_end = log_end
        self._grown = grown
        self._upkeep = upkeep
        self._save = save
        self._save_seconds = save_seconds
        self._clock = clock
        self._monotonic = monotonic
        self._stop_at: float | None = None
        self._stopping = threading.Event()
        self._current_unix_nano: int | None = None
        self.saved_at = monotonic()
        self.processed_batches = 0
        self.dropped: Counter[str] = Counter()
        """Batches that a consumer did not take, or that could not be read at all, by reason."""
        self.failures: Counter[str] = Counter()
        """What failed and is tried again, so that nothing is lost by it: reading, saving, upkeep of a stage."""
        self._said_at: dict[tuple[str, str], float] = {}
        self.cpu_seconds = dict.fromkeys((branch.name for branch in self._branches), 0.0)
        self._thread = threading.Thread(target=self._run, name="introspan-feed", daemon=True)

    @property
    def alive(self) -> bool:
        """True while the log is read."""
        return self._thread.is_alive()

    @property
    def lag_bytes(self) -> int:
        """Bytes in the log that were not handed on."""
        return max(self._log_end() - self._reader.offset, 0)

    @property
    def lag_seconds(self) -> float:
        """Age of the batch being handed on; 0 when all are."""
        received_unix_nano = self._current_unix_nano
        return 0.0 if received_unix_nano is None else max(self._clock() - received_unix_nano / 1e9, 0.0)

    def start(self) -> None:
        """Begins to read."""
        self._thread.start()

    def stop(self, limit_seconds: float) -> None:
        """Reads to the end of the log, or until the limit, then saves; the next start reads on."""
        self._stop_at = self._monotonic() + limit_seconds
        self._stopping.set()
        self._grown.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._grown.clear()
            self._read_to(self._log_end())
            if self._stop_at is not None:
                break
            if self._grown.wait(min(_IDLE_SECONDS, self._save_seconds)):
                self._stopping.wait(_GATHER_SECONDS)
            for name, operation in self._upkeep.items():
                self._attempt(name, operation)
            self._save_if_due()
        self._attempt("checkpoint", lambda: self._save(self._reader.offset))

    def _read_to(self, end: int) -> None:
        while self._stop_at is None or self._monotonic() < self._stop_at:
            try:
                found = self._reader.next_record(end)
            except Exception as error:  # noqa: BLE001 without this thread nothing would be read any more
                self._note_failure("read", error)
                return
            if found is None:
                break
            self._hand_on(found)
            self._save_if_due()
        self._current_unix_nano = None

    def _hand_on(self, found: Found) -> None:
        self._current_unix_nano = found.header.received_unix_nano
        try:
            batch = to_batch(found)
        except Exception as error:  # noqa: BLE001 a record that cannot be read must not stop those after it
            # Only a log written by another version of the collector can hold such a record.
            self._note_drop("undecodable", error)
            return
        for branch in self._branches:
            if found.offset >= branch.start:
                self._hand_to(branch, batch)
        self.processed_batches += 1

    def _hand_to(self, branch: Branch, batch: Batch) -> None:
        began = time.thread_time()
        try:
            branch.consumer.consume(batch)
        except Exception as error:  # noqa: BLE001 a fault of one consumer must not stop the others
            self._note_drop(f"{branch.name}_error", error)
        self.cpu_seconds[branch.name] += time.thread_time() - began

    def _save_if_due(self) -> None:
        if self._monotonic() - self.saved_at >= self._save_seconds:
            self._attempt("checkpoint", lambda: self._save(self._reader.offset))
            self.saved_at = self._monotonic()

    def _attempt(self, name: str, operation: Callable[[], None]) -> None:
        try:
            operation()
        except Exception as error:  # noqa: BLE001 it is tried again, and batches go on
            self._note_failure(name, error)

    def _note_drop(self, reason: str, error: Exception) -> None:
        self.dropped[reason] += 1
        if self._is_to_be_said(reason, error):
            _log.error("batch dropped", reason=reason, dropped_so_far=self.dropped[reason], exc_info=error)

    def _note_failure(self, operation: str, error: Exception) -> None:
        self.failures[operation] += 1
        if self._is_to_be_said(operation, error):
            so_far = self.failures[operation]
            _log.error("failed, is tried again", operation=operation, failed_so_far=so_far, exc_info=error)

    def _is_to_be_said(self, what: str, error: Exception) -> bool:
        """Once an hour for each kind of error: metrics have every one."""
        kind, now = (what, type(error).__name__), self._monotonic()
        if now - self._said_at.get(kind, -_SAY_AGAIN_SECONDS) < _SAY_AGAIN_SECONDS:
            return False
        self._said_at[kind] = now
        return True

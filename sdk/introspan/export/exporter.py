"""Observations in from the model's thread, acknowledged batches out from one background thread."""

import logging
import os
import random
import time
import uuid
import weakref
from collections import Counter
from collections.abc import Callable
from multiprocessing.util import Finalize
from threading import Event, Thread

from introspan.config import Settings
from introspan.export.backlog import Backlog
from introspan.export.backoff import Backoff
from introspan.export.delivery import Delivery, Link
from introspan.export.envelope import encode_status
from introspan.export.frame import FRAME_BYTES, Frame, Framer
from introspan.export.reply import Failure, Reply
from introspan.observation import CaptureStatus, Disabled, Observation, Resource
from introspan_wire.limits import ATTRIBUTES, COLUMNS

TICK_SECONDS = 0.9
"""Longest that an observation waits for others before it is sent; the thread's only wake-up while idle."""

HEARTBEAT_SECONDS = 10.0
"""Longest time between two messages, which then carry the status alone."""

_log = logging.getLogger(__name__)


class Exporter:
    """Sends what one worker measured. offer, hurry, start and close are for one thread: the model's.

    status is asked for each message. on_directives gets the collector's (upper bound of the sampling
    probability or None, capture off) when it changes, on the exporter's thread; it can only ever get lower.
    """

    def __init__(
        self,
        settings: Settings,
        resource: Resource,
        status: Callable[[], CaptureStatus],
        on_directives: Callable[[float | None, bool], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        clock_unix_nano: Callable[[], int] = time.time_ns,
        tick_seconds: float = TICK_SECONDS,
        rng: random.Random | None = None,
        backoff: Backoff = Backoff(),  # noqa: B008 - an immutable value
        new_producer_id: Callable[[], bytes] = lambda: uuid.uuid4().bytes,
    ) -> None:
        self._settings = settings
        self._resource = resource
        self._fingerprint = resource.model_fingerprint
        self._status = status
        self._on_directives = on_directives
        self._clock = clock
        self._unix_nano = clock_unix_nano
        self._tick_seconds = tick_seconds
        self._rng = rng or random.Random()  # noqa: S311 - spreads retries, hides nothing
        self._backoff = backoff
        self._new_producer_id = new_producer_id
        self._ceiling: float | None = None
        self._capture_off = False
        self._inherited: Delivery | None = None
        if len(resource.attributes) > ATTRIBUTES:
            _log.warning(
                "introspan: a resource must have at most %d attributes, got %d; the last ones are not sent",
                ATTRIBUTES,
                len(resource.attributes),
            )
        self._reset()
        os.register_at_fork(after_in_child=_Weakly(self, Exporter._leave_parent))

    def _reset(self) -> None:
        self._backlog = Backlog(self._settings.queue_bytes)
        self._framer = Framer(self._resource, self._new_producer_id())
        self._stop = Event()
        self._wake = Event()
        self._delivery = Delivery(
            self._connect,
            self._settings.timeout_seconds,
            self._stop,
            clock=self._clock,
            rng=self._rng,
            backoff=self._backoff,
        )
        self._thread: Thread | None = None
        self._drops: Counter[str] = Counter()  # written by the exporter's thread
        self._late = 0  # written by the model's thread
        self._in_hand = 0
        self._logged: set[str] = set()
        self._heartbeat_at = self._clock()  # the collector hears of this producer at once
        self._told_disabled: tuple[Disabled, ...] = ()

    def _leave_parent(self) -> None:
        # Thread and connection stay behind in the parent. The inherited connection is kept, since gRPC must
        # not be touched here, not even to be freed.
        self._inherited = self._delivery
        self._reset()

    def offer(self, observation: Observation) -> None:
        """Takes an observation over, at once: it is sent within a second, or dropped and counted."""
        if self._stop.is_set():
            self._late += 1
            return
        if self._thread is None:
            self.start()
        if self._backlog.put(observation) >= FRAME_BYTES and not self._wake.is_set():
            self._wake.set()

    def hurry(self) -> None:
        """Sends what waits now, rather than within a second."""
        self._wake.set()

    def model_changed(self, fingerprint: str) -> None:
        """The weights have changed: a status without observations is of the new model. For the model's thread."""
        self._fingerprint = fingerprint

    def start(self) -> None:
        """Starts the thread, so that the status is sent even before anything is offered."""
        if self._thread is None:
            # Runs at exit in children of multiprocessing too, where atexit does not.
            Finalize(None, _Weakly(self, Exporter.close), exitpriority=100)
            self._thread = Thread(target=self._run, name="introspan-export", daemon=True)
            self._thread.start()

    def close(self, timeout_seconds: float = 2.0) -> None:
        """Sends what waits, within the timeout; what is then left is dropped and counted. Idempotent."""
        if self._stop.is_set():
            return
        ends = time.monotonic() + timeout_seconds
        # Cancelling what hangs takes a moment too.
        self._delivery.not_after = self._clock() + 0.9 * timeout_seconds
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(0.9 * timeout_seconds)
            if self._thread.is_alive():
                self._delivery.close()
                self._thread.join(max(0.0, ends - time.monotonic()))

    @property
    def drops(self) -> dict[str, int]:
        """Segments dropped so far, by reason."""
        drops = Counter(self._drops)
        drops["queue_full"] += self._backlog.evicted
        drops["shutdown"] += self._late
        return {reason: segments for reason, segments in drops.items() if segments}

    def _connect(self) -> Link:
        # gRPC starts threads that do not survive a fork, so it is first imported on this thread.
        from introspan.export.channel import Channel  # noqa: PLC0415 - the comment above says why

        return Channel(self._settings, self._resource.sdk_version)

    def _run(self) -> None:
        while not self._stop.is_set():
            held_seconds = self._delivery.resume_at - self._clock()
            if held_seconds > 0:
                self._stop.wait(held_seconds)
            else:
                self._wake.wait(self._tick_seconds)
            self._wake.clear()
            self._flush()
        while left := self._framer.collect(self._backlog.take, 0):
            self._drop("shutdown", len(left))
        if unsent := self._drops["shutdown"]:
            # No message will say so any more.
            _log.warning(
                "introspan export to %s: %d segments were not sent in time", self._settings.endpoint, unsent
            )
        self._delivery.close()

    def _flush(self) -> None:
        try:
            while self._send_next():
                pass
        except Exception:  # noqa: BLE001 - the edge of our code: counted, and the next tick tries again
            self._drop("internal_error", self._in_hand)
            self._log_once("internal_error", "the frame in hand was dropped", exc_info=True)

    def _send_next(self) -> bool:
        """Sends one frame if one is due; True if more may wait."""
        now = self._clock()
        if now < self._delivery.resume_at or now >= self._delivery.not_after:
            return False
        self._in_hand = 0
        status = self._status()
        message = encode_status(status, self.drops, self._age_seconds())
        observations = self._framer.collect(self._backlog.take, message.ByteSize())
        if not observations and now < self._heartbeat_at and status.disabled == self._told_disabled:
            return False
        if not observations:
            self._framer.rename(self._fingerprint)
        self._in_hand = len(observations)
        frame = self._framer.frame(observations, message)
        self._told_disabled = status.disabled
        self._heartbeat_at = now + HEARTBEAT_SECONDS
        if frame.columns_left_out:
            self._log_once(
                "too_many_columns",
                f"a segment must have at most {COLUMNS} columns; {frame.columns_left_out} of single heads are left "
                "out: lower INTROSPAN_ATTENTION_LAYERS",
            )
        self._settle(frame, self._delivery.deliver(frame.data))
        return bool(observations)

    def _age_seconds(self) -> float:
        """How long ago what waits longest was measured, 0 where nothing waits."""
        oldest = self._framer.held or self._backlog.oldest()
        return 0.0 if oldest is None else max(0.0, (self._unix_nano() - oldest.time_unix_nano) / 1e9)

    def _settle(self, frame: Frame, outcome: Reply | Failure) -> None:
        """Counts what the outcome lost, and obeys what the collector said."""
        self._in_hand = 0
        if isinstance(outcome, Failure):
            reason = "shutdown" if outcome.retryable and self._stop.is_set() else outcome.reason
            self._drop(reason, frame.segments)
            self._log_once(reason, outcome.detail)
            return
        if outcome.rejected_segments:
            self._drop("rejected", min(outcome.rejected_segments, frame.segments))
        if outcome.message or outcome.rejected_segments:
            self._log_once("rejected" if outcome.rejected_segments else "remark", outcome.message)
        self._obey(outcome)

    def _obey(self, reply: Reply) -> None:
        """Hands on a lower bound or an "off"; what would raise the bound or switch on again is ignored."""
        bound = reply.max_sampling_probability
        lower = bound is not None and bound < (1.0 if self._ceiling is None else self._ceiling)
        off = reply.capture_off and not self._capture_off
        if lower and bound is not None:
            self._ceiling = max(0.0, bound)
        self._capture_off = self._capture_off or off
        if lower or off:
            self._on_directives(self._ceiling, self._capture_off)

    def _drop(self, reason: str, segments: int) -> None:
        if segments:
            self._drops[reason] += segments

    def _log_once(self, reason: str, detail: str, *, exc_info: bool = False) -> None:
        if reason not in self._logged:
            self._logged.add(reason)
            # %.300r, since the detail may be a stranger's.
            _log.warning(
                "introspan export to %s: %s: %.300r; logged once",
                self._settings.endpoint,
                reason,
                detail,
                exc_info=exc_info,
            )


class _Weakly:
    """An exporter's method that does not keep the exporter alive."""

    def __init__(self, exporter: Exporter, method: Callable[[Exporter], None]) -> None:
        self._exporter = weakref.ref(exporter)
        self._method = method

    def __call__(self) -> None:
        if (exporter := self._exporter()) is not None:
            self._method(exporter)

"""One frame in, the collector's reply or why none came out, after as many tries as one deadline allows."""

import random
import time
from collections.abc import Callable
from threading import Event
from typing import Protocol

from introspan.export.backoff import Backoff
from introspan.export.reply import Failure, Reply


class Link(Protocol):
    """A connection to a collector."""

    def send(self, frame: bytes, timeout_seconds: float) -> Reply | Failure:
        """Sends one request and waits for the answer."""
        ...

    def close(self) -> None:
        """Closes the connection and cancels the request in flight, from any thread."""
        ...


class Delivery:
    """Tries one frame at a time; connects at the first."""

    def __init__(
        self,
        connect: Callable[[], Link],
        timeout_seconds: float,
        stop: Event,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        backoff: Backoff,
    ) -> None:
        self._connect = connect
        self._timeout_seconds = timeout_seconds
        self._stop = stop
        self._clock = clock
        self._rng = rng
        self._backoff = backoff
        self._link: Link | None = None
        self.not_after = float("inf")
        """When every try ends at the latest, on the clock; set at shutdown."""
        self.resume_at = float("-inf")
        """When the collector wants to hear of us again, on the clock."""

    def deliver(self, frame: bytes) -> Reply | Failure:
        """The reply, or the last failure: a permanent one, or one after which no time is left."""
        deadline = self._clock() + self._timeout_seconds
        tries = 0
        outcome: Reply | Failure = Failure("deadline_exceeded", "no time was left to try", retryable=True)
        while (left := min(deadline, self.not_after) - self._clock()) > 0:
            outcome = self._try(frame, left)
            if isinstance(outcome, Reply) or not outcome.retryable:
                break
            tries += 1
            wait = self._backoff.seconds(tries, outcome.retry_after_seconds, self._rng)
            if outcome.retry_after_seconds is not None:
                self.resume_at = self._clock() + wait
            if self._clock() + wait >= min(deadline, self.not_after):
                break
            self._pause(wait)
        return outcome

    def close(self) -> None:
        """Closes the connection and cancels the try in flight, from any thread."""
        if self._link is not None:
            self._link.close()

    def _try(self, frame: bytes, timeout_seconds: float) -> Reply | Failure:
        if self._link is None:
            try:
                self._link = self._connect()
            except OSError as error:
                return Failure("tls_files", f"{error.filename} must be readable, got {error.strerror}")
        return self._link.send(frame, timeout_seconds)

    def _pause(self, seconds: float) -> None:
        # Shutdown cuts a wait short once, for a try at once; the waits after that are waits again.
        if self._stop.is_set():
            time.sleep(seconds)
        else:
            self._stop.wait(seconds)

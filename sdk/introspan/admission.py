"""Hashes of requests in; which of them are measured, and with what probability, out."""

import time
from collections.abc import Callable

from introspan.context import is_chosen
from introspan.observation import Request
from introspan_wire.signals import SEGMENT_TOKENS

_LEAST = 1e-4
_WINDOW_SECONDS = 10.0
_RECOVERY = 1.25


class Admission:
    """A threshold on the request's hash, lowered while observations exceed a budget.

    rate: the configured probability in [0, 1]; row_budget: observations a second. The probability a request was
    admitted with stays with it, so that estimates can be weighted by its inverse and stay unbiased.
    """

    def __init__(self, rate: float, row_budget: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._budget = row_budget
        self._clock = clock
        self._share = 1.0
        self._emitted = 0
        self._window_started = clock()

    @property
    def probability(self) -> float:
        """Probability with which a request is measured now."""
        return self._rate * self._share

    def admit(self, request_hash: int) -> float | None:
        """The probability the request was admitted with, or None where it is not measured."""
        probability = self.probability
        return probability if is_chosen(request_hash, probability) else None

    def emitted(self, observations: int) -> None:
        """Counts observations against the budget; moves the threshold once every ten seconds."""
        self._emitted += observations
        elapsed = self._clock() - self._window_started
        if elapsed < _WINDOW_SECONDS:
            return
        load = self._emitted / elapsed / self._budget
        self._share = max(_LEAST, min(1.0, self._share * min(_RECOVERY, 1.0 / max(load, 1e-9))))
        self._emitted = 0
        self._window_started = self._clock()

    def ended(self, request: Request, last_position: int) -> None:
        """Takes note of the end of a request, at the last position it reached; here nothing follows from it."""

    def brake(self, most: float) -> None:
        """Lowers the configured probability to at most this, until the worker restarts."""
        self._rate = min(self._rate, most)


class SharedAdmission(Admission):
    """The same decisions in every worker of an engine, which measure parts of the same requests.

    Nothing that is a worker's own enters: not when it computes or sends rows, nor its clock. What counts against the
    budget is what requests give by their lengths, when they begin and end; clock must be the engine's. Only the
    collector's brake reaches one worker a message before another: as thresholds are nested, the one admits some of what
    the other does, and weighs it by its own probability.

    decoded: how many observations so many decoded tokens give.
    """

    def __init__(
        self,
        rate: float,
        row_budget: float,
        clock: Callable[[], float],
        decoded: Callable[[int], int] | None = None,
    ) -> None:
        super().__init__(rate, row_budget, clock)
        self._decoded = _segments if decoded is None else decoded

    def admit(self, request_hash: int) -> float | None:
        """As Admission.admit; counts the observation of the prompt of a request that is measured."""
        probability = super().admit(request_hash)
        if probability is not None:
            super().emitted(1)
        return probability

    def ended(self, request: Request, last_position: int) -> None:
        """Counts the observations of the tokens that a request has decoded."""
        super().emitted(self._decoded(last_position + 1 - request.prompt_tokens))

    def emitted(self, observations: int) -> None:
        """Counts nothing: what a worker sends in a window of time is its own."""


def _segments(decoded_tokens: int) -> int:
    """How many segments so many decoded tokens are sent in."""
    count = 0
    while decoded_tokens > 0:
        decoded_tokens -= SEGMENT_TOKENS[min(count, len(SEGMENT_TOKENS) - 1)]
        count += 1
    return count

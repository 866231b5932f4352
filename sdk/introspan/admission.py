"""Hashes of requests in; which of them are measured, and with what probability, out."""

import time
from collections.abc import Callable

from introspan.context import is_chosen

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

    def brake(self, most: float) -> None:
        """Lowers the configured probability to at most this, until the worker restarts."""
        self._rate = min(self._rate, most)

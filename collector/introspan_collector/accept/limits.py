"""Producers and bytes in, seconds to wait out."""

import time
from collections import OrderedDict
from collections.abc import Callable

_IDLE_SECONDS = 60.0


class ProducerLimits:
    """A token bucket of bytes for each producer, and a bound on how many producers there are at a time.

    A producer that has been silent for a minute makes room for a new one.
    """

    def __init__(
        self,
        *,
        bytes_per_second: float,
        burst_bytes: float,
        max_producers: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bytes_per_second = bytes_per_second
        self._burst_bytes = burst_bytes
        self._max_producers = max_producers
        self._monotonic = monotonic
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()  # bytes left, at what time

    def __len__(self) -> int:
        return len(self._buckets)

    def has_room(self, producer: bytes) -> bool:
        """True if the producer is known or may become so."""
        if producer in self._buckets or len(self._buckets) < self._max_producers:
            return True
        oldest, (_, seen_at) = next(iter(self._buckets.items()))
        if self._monotonic() - seen_at < _IDLE_SECONDS:
            return False
        del self._buckets[oldest]
        return True

    def wait_seconds(self, producer: bytes, size_bytes: int) -> float:
        """0 if the producer may send so many bytes now, which uses them up; else how long to wait."""
        now = self._monotonic()
        left, seen_at = self._buckets.get(producer, (self._burst_bytes, now))
        left = min(self._burst_bytes, left + (now - seen_at) * self._bytes_per_second)
        # A full bucket lets even a batch pass that is larger than the bucket: otherwise it never could.
        allowed = left >= min(size_bytes, self._burst_bytes)
        self._buckets[producer] = (left - size_bytes if allowed else left, now)
        self._buckets.move_to_end(producer)
        return 0.0 if allowed else (min(size_bytes, self._burst_bytes) - left) / self._bytes_per_second

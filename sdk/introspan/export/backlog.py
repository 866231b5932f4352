"""Observations in, the same in order out, oldest dropped beyond a bound of bytes; nobody ever waits."""

from collections import deque

from introspan.observation import Observation

OBJECT_BYTES = 1024
"""What an observation takes in memory beside its values, measured with tracemalloc, rounded up."""


class Backlog:
    """Bounded by bytes and free of locks: one thread puts, one other takes.

    Every counter has one writer, and a deque's append and popleft are atomic, so the model's thread never
    waits for the exporter's.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: deque[Observation] = deque()
        self._put_bytes = 0  # written by the putting thread, like the next two
        self._evicted_bytes = 0
        self._taken_bytes = 0  # written by the taking thread
        self.evicted = 0
        """Observations dropped because the bound was reached."""

    def put(self, observation: Observation) -> int:
        """Appends, dropping the oldest while over the bound; returns the bytes that now wait."""
        self._put_bytes += _bytes(observation)
        self._items.append(observation)
        while (waiting := self._put_bytes - self._evicted_bytes - self._taken_bytes) > self._max_bytes:
            try:
                oldest = self._items.popleft()
            except IndexError:  # taken by the other thread, which has yet to count it
                break
            self._evicted_bytes += _bytes(oldest)
            self.evicted += 1
        return waiting

    def oldest(self) -> Observation | None:
        """What take would give, left where it is; for the taking thread."""
        try:
            return self._items[0]
        except IndexError:
            return None

    def take(self) -> Observation | None:
        """The oldest observation, or None where none waits."""
        try:
            observation = self._items.popleft()
        except IndexError:
            return None
        self._taken_bytes += _bytes(observation)
        return observation


def _bytes(observation: Observation) -> int:
    return observation.values.nbytes + OBJECT_BYTES

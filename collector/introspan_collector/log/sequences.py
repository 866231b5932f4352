"""Producers and sequence numbers in, "seen before" out."""

from collections import OrderedDict


class Sequences:
    """The last sequence of each of at most `limit` producers: the one silent longest is forgotten."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._last: OrderedDict[bytes, int] = OrderedDict()
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._last)

    def seen(self, producer: bytes, sequence: int) -> bool:
        """True if this batch, or a later one of the producer, is in the log."""
        return sequence <= self._last.get(producer, 0)

    def advance(self, producer: bytes, sequence: int) -> None:
        """Remembers that a batch is in the log."""
        self._last[producer] = max(sequence, self._last.get(producer, 0))
        self._last.move_to_end(producer)
        if len(self._last) > self._limit:
            self._last.popitem(last=False)
            self.evicted += 1

"""Statistics by series and slot in, statistics of the last minute out."""

import numpy as np
from numpy.typing import NDArray

from introspan_collector.moments import Moments


class Window:
    """A ring of time slots, each holding Moments by series row; and event totals and the slot of last use by row.

    Slots are numbered by time // slot length. Memory is slots × rows × 40 bytes.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._numbers = np.full(slots, -1, np.int64)
        self._sets = Moments.empty((slots, 64))
        self.events = np.zeros(64)
        self.last_slot = np.full(64, -1, np.int64)

    def reserve(self, rows: int) -> None:
        """Makes room for that many series."""
        have = len(self.events)
        if rows <= have:
            return
        size = max(rows, have + have // 2)
        sets = Moments.empty((self._slots, size))
        sets.put((slice(None), slice(0, have)), self._sets)
        self._sets = sets
        self.events = np.concatenate([self.events, np.zeros(size - have)])
        self.last_slot = np.concatenate([self.last_slot, np.full(size - have, -1, np.int64)])

    def add(self, slot: int, rows: NDArray[np.intp], sets: Moments) -> None:
        """Merges sets, one for each row; rows are distinct. What is older than the ring is left out."""
        place = slot % self._slots
        if slot < self._numbers[place]:
            return
        if slot > self._numbers[place]:
            self._sets.put(place, Moments.empty(len(self.events)))
            self._numbers[place] = slot
        self._sets.put((place, rows), self._sets.at((place, rows)).merge(sets))

    def clear(self, rows: list[int]) -> None:
        """Forgets rows, so that other series can have them."""
        index = np.array(rows, np.intp)
        self._sets.put((slice(None), index), Moments.empty((self._slots, len(rows))))
        self.events[index] = 0.0
        self.last_slot[index] = -1

    def shown(self, first_slot: int, last_slot: int, rows: NDArray[np.intp]) -> Moments:
        """Statistics of each row over the slots from first to last, inclusive."""
        return self._sets.at(np.ix_(self._places(first_slot, last_slot), rows)).over(0)

    def by_slot(self, first_slot: int, last_slot: int, row: int) -> tuple[NDArray[np.int64], Moments]:
        """Slot numbers, ascending, and the statistics of one row in each."""
        places = self._places(first_slot, last_slot)
        places = places[np.argsort(self._numbers[places])]
        return self._numbers[places], self._sets.at((places, row))

    def _places(self, first_slot: int, last_slot: int) -> NDArray[np.intp]:
        return np.flatnonzero((self._numbers >= first_slot) & (self._numbers <= last_slot))

"""The rows of single steps in, the rows of several steps together out."""

from collections.abc import Set as AbstractSet

import numpy as np
from numpy.typing import NDArray

from introspan.capture.rows import Selection, join


class Waiting:
    """Rows that were measured in a step and are computed later, with the array that their values go to.

    capacity: rows at most; width: columns.
    """

    def __init__(self, capacity: int, width: int) -> None:
        self._capacity = capacity
        self._values = np.full((capacity, width), np.nan, np.float32)
        self._selections: list[Selection] = []
        self._keys: set[str] = set()
        self._since = 0.0
        self.count = 0
        """Rows that wait."""

    def has_room(self, rows: int) -> bool:
        """Whether that many more fit."""
        return self.count + rows <= self._capacity

    def holds(self, key: str) -> bool:
        """Whether a row of that request waits."""
        return key in self._keys

    def all_within(self, keys: AbstractSet[str]) -> bool:
        """Whether the rows that wait are all of these requests."""
        return self._keys <= keys

    def age_seconds(self, now: float) -> float:
        """How long the oldest row has waited; 0 where none does."""
        return now - self._since if self.count else 0.0

    def place(self, selection: Selection) -> NDArray[np.float32]:
        """Where the values of a step's rows go, before they are added: [rows, columns], nothing measured yet."""
        values = self._values[self.count : self.count + len(selection)]
        values[:] = np.nan
        return values

    def add(self, selection: Selection, now: float) -> None:
        """Adds a step's rows."""
        if not self.count:
            self._since = now
        self._selections.append(selection)
        self._keys.update(request.key for request in selection.requests)
        self.count += len(selection)

    def peek(self) -> tuple[Selection, NDArray[np.float32]]:
        """All rows that wait, in the order of their steps, and their values."""
        return join(self._selections), self._values[: self.count]

    def clear(self) -> None:
        """Forgets them."""
        self._selections, self._keys, self.count = [], set(), 0

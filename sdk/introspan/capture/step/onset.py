"""Rows of a few steps in; those of them at which something countable begins out."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from introspan.capture.columns import Layout
from introspan.capture.rows import Selection

_COUNTED = ("residual.nonfinite", "output.nonfinite", "output.repetition")


class Onsets:
    """Remembers which requests have shown a count: going on about it every row would say nothing new."""

    def __init__(self, layout: Layout) -> None:
        self._blocks = [layout.blocks[name] for name in _COUNTED]
        self._repetition = layout.blocks["output.repetition"]
        self._known: set[str] = set()

    def forget(self, key: str) -> None:
        """Drops what is kept of a request that has ended."""
        self._known.discard(key)

    def is_any_new(self, selection: Selection, rows: Iterable[int]) -> bool:
        """Whether any of these rows is of a request that has shown nothing yet."""
        return any(selection.requests[row].key not in self._known for row in rows)

    def repeats(self, selection: Selection, values: NDArray[np.float32]) -> bool:
        """Whether a request begins to repeat itself; values: [rows, columns]."""
        repeating = (values[:, self._repetition] > 0).any(axis=1)
        return self.is_any_new(selection, np.flatnonzero(repeating).tolist())

    def of(self, selection: Selection, values: NDArray[np.float32]) -> NDArray[np.bool_]:
        """The rows [rows] at which a request shows its first count, which it then has shown."""
        found = np.zeros(len(selection), np.bool_)
        for block in self._blocks:
            found |= (values[:, block] > 0).any(axis=1)
        for row in np.flatnonzero(found).tolist():
            key = selection.requests[row].key
            found[row] = key not in self._known
            self._known.add(key)
        return found

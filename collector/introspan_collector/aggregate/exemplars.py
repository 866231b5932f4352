"""Values of traced requests in, the latest one of each bucket out."""

import numpy as np
from numpy.typing import NDArray

from introspan_collector.view import Exemplar


class Exemplars:
    """The latest exemplar of each cell, a cell being one bucket of one histogram; cells × 44 bytes."""

    def __init__(self) -> None:
        self._value = np.zeros(0)
        self._time = np.zeros(0)
        self._ids = np.zeros((0, 24), np.uint8)
        self._latest = np.zeros(0, np.int32)

    def reserve(self, cells: int) -> None:
        """Makes room for that many cells; new ones are empty."""
        more = cells - len(self._time)
        if more > 0:
            self._value = np.concatenate([self._value, np.zeros(more)])
            self._time = np.concatenate([self._time, np.zeros(more)])
            self._ids = np.concatenate([self._ids, np.zeros((more, 24), np.uint8)])
            self._latest = np.zeros(cells, np.int32)

    def remember(
        self,
        cells: NDArray[np.intp],
        values: NDArray[np.float32],
        times: NDArray[np.float64],
        ids: NDArray[np.uint8],
        rows: NDArray[np.intp],
    ) -> None:
        """Takes values in the order they came. cells, values, rows: [n]; times [t] and ids [t, 24] are by row."""
        # The last one in each cell wins; ids are wide, so the winners are found before anything is copied.
        order = np.arange(len(cells), dtype=np.int32)
        self._latest[cells] = order
        won = np.flatnonzero(self._latest[cells] == order)
        latest, row = cells[won], rows[won]
        self._value[latest], self._time[latest], self._ids[latest] = values[won], times[row], ids[row]

    def clear(self, cells: NDArray[np.intp]) -> None:
        """Empties cells."""
        self._time[cells] = 0.0

    def shown(self, first: int, end: int) -> dict[int, Exemplar]:
        """The exemplars of neighbouring cells, by their distance from the first one."""
        return {at: self._exemplar(first + at) for at in np.flatnonzero(self._time[first:end]).tolist()}

    def _exemplar(self, cell: int) -> Exemplar:
        ids = self._ids[cell]
        return Exemplar(
            ids[:16].tobytes().hex(),
            ids[16:].tobytes().hex() if ids[16:].any() else "",
            float(self._value[cell]),
            float(self._time[cell]),
        )

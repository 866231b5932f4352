"""Features in, their ranks among the reference's features of the same cell out."""

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.alignment import aligned
from introspan_collector.detect.cells import members
from introspan_collector.detect.reference import Population
from introspan_collector.detect.sample import Sample, uniform

_PURPOSE = 0xBA2C
_GOLDEN = 0x9E3779B97F4A7C15
_BITS = np.uint64(32)
_SIGN = np.uint32(1 << 31)


class Ranks:
    """Every feature of every cell, sorted, in one array: a search finds all features of all requests at once."""

    def __init__(self, population: Population) -> None:
        self._names = population.names
        row, cell = members(population.cells, population.class_id, population.length_bin)
        values = population.features[row]
        block = cell[:, None] * len(self._names) + np.arange(len(self._names))
        measured = ~np.isnan(values)
        shape = (population.cell_count, len(self._names))
        sizes = np.bincount(block[measured], minlength=shape[0] * shape[1])
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self._sorted = np.sort(_keys(block[measured], values[measured]))
        self.sizes: NDArray[np.int64] = sizes.reshape(shape)
        """N₀ of each cell and feature, int64 [cells, F]."""

    def u(self, sample: Sample, cell: NDArray[np.intp]) -> NDArray[np.float64]:
        """U = F(x−) + V · (F(x) − F(x−)), float64 [n, F]; NaN where x or all of the cell was not measured."""
        values = aligned(sample.features, sample.names, self._names)
        block = cell[:, None] * len(self._names) + np.arange(len(self._names))
        keys = _keys(block, values)
        below = np.searchsorted(self._sorted, keys, "left") - self._starts[block]
        upto = np.searchsorted(self._sorted, keys, "right") - self._starts[block]
        size = self.sizes[cell]
        purposes = np.arange(1, len(self._names) + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
        tie = uniform(sample.seed[:, None] + purposes, _PURPOSE)
        u = (below + tie * (upto - below)) / np.maximum(size, 1)
        return np.where(np.isnan(values) | (size == 0), np.nan, u)


def _keys(block: NDArray[np.intp], values: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Numbers that sort by block, then by value."""
    bits = (values + np.float32(0)).view(np.uint32)  # + 0 makes −0 and 0 the same
    ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return (block.astype(np.uint64) << _BITS) | ordered.astype(np.uint64)

"""Features in, their ranks among the reference's features of the same cell out."""

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.reference.alignment import aligned
from introspan_collector.detect.reference.cells import members
from introspan_collector.detect.reference.reference import Population
from introspan_collector.detect.sample import Sample, uniform

_PURPOSE = 0xBA2C
_GOLDEN = 0x9E3779B97F4A7C15
_BITS = np.uint64(32)
_SIGN = np.uint32(1 << 31)


class Ranks:
    """Every feature of every cell, sorted, in one array: a search finds all features of all requests at once."""

    def __init__(self, population: Population) -> None:
        self._names = population.names
        self._cells = population.cell_count
        row, cell = members(population.cells, population.class_id, population.length_bin)
        values = population.features[row].T
        block = self._blocks(cell)
        measured = ~np.isnan(values)
        sizes = np.bincount(block[measured], minlength=self._cells * len(self._names))
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self._sorted = np.sort(_keys(block[measured], values[measured]))
        self.sizes: NDArray[np.int64] = sizes.reshape(len(self._names), self._cells).T
        """N₀ of each cell and feature, int64 [cells, F]."""

    def u(self, sample: Sample, cell: NDArray[np.intp]) -> NDArray[np.float64]:
        """U = F(x−) + V · (F(x) − F(x−)), float64 [n, F]; NaN where x or all of the cell was not measured."""
        # By feature: neighbouring searches then end in the same part of the array, which the cache holds.
        values = aligned(sample.features, sample.names, self._names).T
        block = self._blocks(cell)
        keys = _keys(block, values)
        place = np.searchsorted(self._sorted, keys)
        below = (place - self._starts[block]).astype(np.float64)
        tied = np.zeros(place.shape, np.bool_)
        within = place < len(self._sorted)
        tied[within] = self._sorted[place[within]] == keys[within]
        above = np.searchsorted(self._sorted, keys[tied], "right") - place[tied]
        feature, request = np.nonzero(tied)
        purpose = (feature + 1).astype(np.uint64) * np.uint64(_GOLDEN)
        below[tied] += uniform(sample.seed[request] + purpose, _PURPOSE) * above
        size = self._starts[block + 1] - self._starts[block]
        u = below / np.maximum(size, 1)
        return np.where(np.isnan(values) | (size == 0), np.nan, u).T

    def _blocks(self, cell: NDArray[np.intp]) -> NDArray[np.intp]:
        """Which part of the array each feature of each request is looked up in, [F, n]."""
        return np.asarray(np.arange(len(self._names))[:, None] * self._cells + cell)


def _keys(block: NDArray[np.intp], values: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Numbers that sort by block, then by value."""
    bits = (values + np.float32(0)).view(np.uint32)  # + 0 makes −0 and 0 the same
    ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return (block.astype(np.uint64) << _BITS) | ordered.astype(np.uint64)

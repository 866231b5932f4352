"""Values by column and row in, sums over neighbouring columns out — and those in, statistics of blocks of rows out.

Both steps run over rows that lie beside each other in memory, so that the processor handles several at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from introspan_collector.moments import Moments

_VALUES_AT_ONCE = 65_536  # as float64, well within a core's own cache


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Count, sum, sum of squares, smallest and largest of what is finite; each [groups of columns, rows].

    complete: everything was finite. Sums are float64: with float32 values they lose nothing that the values resolve.
    """

    count: NDArray[np.int64]
    total: NDArray[np.float64]
    square: NDArray[np.float64]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    complete: bool


def by_column(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Rows of several tables of the same width: [rows, columns] each → [columns, all rows]."""
    columns = np.empty((parts[0].shape[1], sum(map(len, parts))), np.float32)
    start = 0
    # Part by part, because a small one stays in the cache while it is turned.
    for part in parts:
        columns[:, start : start + len(part)] = part.T
        start += len(part)
    return columns


def sum_columns(values: NDArray[np.float32], column_starts: NDArray[np.intp]) -> Sums:
    """Sums over every group of neighbouring columns, row by row; what is not finite is not measured.

    values: float32 [columns, rows]; column_starts: ascending first indices of the groups, from 0.
    """
    sizes = np.diff(column_starts, append=len(values))
    shape = (len(sizes), values.shape[1])
    sums = Sums(
        np.broadcast_to(sizes[:, None], shape),
        np.empty(shape),
        np.empty(shape),
        np.empty(shape, np.float32),
        np.empty(shape, np.float32),
        complete=True,
    )
    for first, end in _runs(sizes, values.shape[1]):
        start, size = column_starts[first], sizes[first]
        run = values[start : start + (end - first) * size].reshape(end - first, size, -1)
        x = run.astype(np.float64)
        np.add.reduce(x, 1, out=sums.total[first:end])
        if not np.isfinite(sums.total[first:end]).all():
            sums = _without(sums, run, x, slice(first, end))
            continue
        np.add.reduce(np.multiply(x, x, out=x), 1, out=sums.square[first:end])
        np.minimum.reduce(run, 1, out=sums.low[first:end])
        np.maximum.reduce(run, 1, out=sums.high[first:end])
    return sums


def merge_rows(sums: Sums, weights: NDArray[np.float64], row_starts: NDArray[np.intp]) -> Moments:
    """Statistics of every block of neighbouring rows. weights: [rows] → [row blocks, groups of columns].

    row_starts: ascending first indices of the blocks, from 0.
    """

    def blocks(data: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.add.reduceat(data * weights, row_starts, 1).T

    weight, total = blocks(sums.count.astype(np.float64)), blocks(sums.total)
    mean = total / np.where(weight > 0, weight, 1)
    return Moments(
        np.add.reduceat(sums.count, row_starts, 1).T,
        weight,
        mean,
        np.maximum(blocks(sums.square) - total * mean, 0.0),
        np.minimum.reduceat(sums.low, row_starts, 1).T,
        np.maximum.reduceat(sums.high, row_starts, 1).T,
    )


def _runs(sizes: NDArray[np.intp], rows: int) -> Iterator[tuple[int, int]]:
    """Neighbouring groups of the same size: together they are one array of three dimensions."""
    borders = [0, *(np.flatnonzero(np.diff(sizes)) + 1).tolist(), len(sizes)]
    for first, end in pairwise(borders):
        step = max(1, _VALUES_AT_ONCE // max(1, int(sizes[first]) * rows))
        for start in range(first, end, step):
            yield start, min(start + step, end)


def _without(sums: Sums, run: NDArray[np.float32], x: NDArray[np.float64], at: slice) -> Sums:
    """The same for a run of which some values are not finite."""
    finite = np.isfinite(run)
    x[~finite] = 0.0
    if sums.complete:
        sums = replace(sums, count=sums.count.copy(), complete=False)
    np.add.reduce(finite, 1, np.int64, out=sums.count[at])
    np.add.reduce(x, 1, out=sums.total[at])
    np.add.reduce(np.multiply(x, x, out=x), 1, out=sums.square[at])
    np.minimum.reduce(np.where(finite, run, np.float32(np.inf)), 1, out=sums.low[at])
    np.maximum.reduce(np.where(finite, run, np.float32(-np.inf)), 1, out=sums.high[at])
    return sums

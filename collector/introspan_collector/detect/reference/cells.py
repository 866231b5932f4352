"""Classes and lengths of requests in, the cell inside which each is compared out."""

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.reference.classes import Classes

LENGTH_BINS = 32


def fewest_rows(total: int) -> int:
    """Rows that a cell needs: an eighth of all, but at least 100 and at most 500.

    A cell that joins several classes alarms when their proportions change, so a small reference must not be one cell;
    smaller cells have wider bounds, which costs some delay.
    """
    return min(500, max(100, total // 8))


def length_bin(length: NDArray[np.int64]) -> NDArray[np.int8]:
    """⌊log₂ length⌋ of tokens attended, int8 in [0, 32)."""
    return np.asarray(np.clip(np.log2(np.maximum(length, 1)), 0, LENGTH_BINS - 1).astype(np.int8))


def fit_cells(
    class_id: NDArray[np.int16], bins: NDArray[np.int8], classes: Classes, fewest: int
) -> NDArray[np.int16]:
    """The cell of each class and length bin, int16 [C + 1, 32]; its last row is for requests without a class.

    Every cell has at least `fewest` rows, or there is only one: small classes join the nearest class, neighbouring
    bins join one another. The cells of the last row hold the rows of all classes, so a healthy request of unknown
    class has where it belongs.
    """
    counts = np.zeros((len(classes), LENGTH_BINS), np.int64)
    known = class_id >= 0
    np.add.at(counts, (class_id[known].astype(np.intp), bins[known].astype(np.intp)), 1)
    cells: NDArray[np.int16] = np.zeros((len(classes) + 1, LENGTH_BINS), np.int16)
    used = 0
    for group in _groups(counts.sum(axis=1), classes.centroids, fewest):
        part = _merged_bins(counts[group].sum(axis=0), fewest)
        cells[group] = used + part
        used += int(part[-1]) + 1
    cells[-1] = used + _merged_bins(np.bincount(bins, minlength=LENGTH_BINS), fewest)
    return cells


def members(
    cells: NDArray[np.int16], class_id: NDArray[np.int16], bins: NDArray[np.int8]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which of n reference rows lie in which cells, as pairs (row, cell): that of its class and that of all classes."""
    rows = np.arange(len(bins))
    known = class_id >= 0
    own = cells[class_id[known], bins[known]]
    return np.concatenate([rows[known], rows]), np.concatenate([own, cells[-1, bins]]).astype(np.intp)


def _groups(totals: NDArray[np.int64], centroids: NDArray[np.float64], fewest: int) -> list[list[int]]:
    """Classes that are compared together: the smallest joins the nearest until each has `fewest` rows."""
    groups = [[i] for i in range(len(totals))]
    centre = centroids.copy()
    size = totals.astype(np.float64)
    while len(groups) > 1 and size.min() < fewest:
        small = int(np.argmin(size))
        distance = np.sum((centre - centre[small]) ** 2, axis=1)
        distance[small] = np.inf
        other = int(np.argmin(distance))
        total = max(size[small] + size[other], 1.0)
        centre[other] = (centre[small] * size[small] + centre[other] * size[other]) / total
        size[other] += size[small]
        groups[other] += groups[small]
        del groups[small]
        centre, size = np.delete(centre, small, axis=0), np.delete(size, small)
    return groups


def _merged_bins(counts: NDArray[np.int64], fewest: int) -> NDArray[np.int16]:
    """A number for each bin, rising by one after each `fewest` rows; what is left over joins the last."""
    ends = []
    since = 0
    for i, count in enumerate(counts.tolist()):
        since += count
        if since >= fewest:
            ends.append(i)
            since = 0
    starts: NDArray[np.int16] = np.zeros(len(counts), np.int16)
    starts[[end + 1 for end in ends[:-1]]] = 1
    return np.cumsum(starts).astype(np.int16)

"""Projections of prompts in, the class of input that each belongs to out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.space import Space, fit_space

NO_CLASS = -1
"""The class of a request whose prompt was not measured."""

MOST_CLASSES = 16
_ROWS_A_CLASS = 128
_ROUNDS = 25
_WITHIN = 0.99
_FEWEST_DISTANCES = 20


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """C input classes: centroids, float64 [C, P], in the whitened space of the prompt's projection.

    A request farther than `limit` from every centroid is outside all classes; one in a hundred healthy ones is.
    """

    space: Space
    centroids: NDArray[np.float64]
    limit: float

    def __len__(self) -> int:
        return len(self.centroids)

    def nearest(self, projection: NDArray[np.float32]) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
        """Class, int16 [n], and distance to its centroid, float64 [n]; NO_CLASS and NaN where one is not measured."""
        if not len(self):
            return np.full(len(projection), NO_CLASS, np.int16), np.full(len(projection), np.nan)
        distance = _distances(self.space.whiten(projection), self.centroids)
        known = _measured(projection)
        nearest = np.argmin(np.where(known[:, None], distance, 0.0), axis=1)
        found = np.take_along_axis(distance, nearest[:, None], axis=1)[:, 0]
        return np.where(known, nearest, NO_CLASS).astype(np.int16), np.where(known, found, np.nan)


def fit_classes(projection: NDArray[np.float32], fit: NDArray[np.bool_], seed: int) -> Classes:
    """Classes of healthy prompts, float32 [n, P]: k-means on the rows of `fit`, the limit from the other rows.

    One class for each 128 rows that are fitted, at most 16; none where nothing was projected.
    """
    measured = _measured(projection)
    chosen = projection[fit & measured]
    space = fit_space(chosen)
    if not len(chosen):
        return Classes(space, np.zeros((0, projection.shape[1])), np.inf)
    count = min(MOST_CLASSES, max(1, len(chosen) // _ROWS_A_CLASS))
    centroids = _k_means(space.whiten(chosen), count, np.random.default_rng(seed))
    classes = Classes(space, centroids, np.inf)
    others = projection[~fit & measured]
    _, distance = classes.nearest(others if len(others) >= _FEWEST_DISTANCES else projection[measured])
    return Classes(space, centroids, float(np.quantile(distance, _WITHIN)))


def no_classes() -> Classes:
    """Those of traffic whose prompts are not measured."""
    return Classes(fit_space(np.zeros((0, 0), np.float32)), np.zeros((0, 0)), np.inf)


def _measured(projection: NDArray[np.float32]) -> NDArray[np.bool_]:
    if not projection.shape[1]:
        return np.zeros(len(projection), np.bool_)
    return np.asarray(~np.any(np.isnan(projection), axis=1))


def _k_means(points: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    centroids = _spread(points, count, rng)
    for _ in range(_ROUNDS):
        member = np.argmin(_distances(points, centroids), axis=1)
        size = np.bincount(member, minlength=len(centroids))
        order = np.argsort(member, kind="stable")
        used = np.flatnonzero(size)
        starts = np.concatenate([[0], np.cumsum(size[used])[:-1]])
        centroids = np.add.reduceat(points[order], starts, axis=0) / size[used, None]
    return np.asarray(centroids)


def _spread(points: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """First centroids: rows drawn in proportion to the squared distance from those before (k-means++)."""
    chosen = [int(rng.integers(len(points)))]
    apart = _distances(points, points[chosen])[:, 0] ** 2
    while len(chosen) < count and (total := float(apart.sum())) > 0:
        chosen.append(int(rng.choice(len(points), p=apart / total)))
        apart = np.minimum(apart, _distances(points, points[chosen[-1:]])[:, 0] ** 2)
    return points[chosen]


def _distances(points: NDArray[np.float64], centroids: NDArray[np.float64]) -> NDArray[np.float64]:
    squares = np.sum(points**2, axis=1)[:, None] + np.sum(centroids**2, axis=1) - 2 * points @ centroids.T
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))

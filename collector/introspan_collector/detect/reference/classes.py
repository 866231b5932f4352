"""Projections of prompts in, the class of input that each belongs to out."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.reference.space import Space, fit_space

NO_CLASS = -1
"""The class of a request whose prompt was not measured."""

MOST_CLASSES = 16
_ROWS_A_CLASS = 64
_ROUNDS = 25
_DIRECTIONS = 8
_WITHIN = 0.99
_FEWEST_DISTANCES = 20


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """C input classes, told apart by the projection of the prompt.

    The class is the nearest of centroids, float64 [C, D], in the D directions, axes float64 [P, D], in which the scaled
    projections vary most: after whitening all P count alike, and those that tell classes apart drown in the others.
    A request is outside all classes when its distance from means, float64 [C, P], of its class, whitened as requests
    vary within classes, exceeds `limit`; one in a hundred healthy ones does.
    """

    space: Space
    axes: NDArray[np.float64]
    centroids: NDArray[np.float64]
    means: NDArray[np.float64]
    within: Space
    limit: float

    def __len__(self) -> int:
        return len(self.centroids)

    def nearest(self, projection: NDArray[np.float32]) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
        """Class, int16 [n], and distance from its mean, float64 [n]; NO_CLASS and NaN where one is not measured."""
        class_id = np.full(len(projection), NO_CLASS, np.int16)
        distance = np.full(len(projection), np.nan)
        known = _measured(projection)
        if len(self) and known.any():
            rows = projection[known]
            nearest = np.argmin(_distances(self.space.scaled(rows) @ self.axes, self.centroids), axis=1)
            class_id[known] = nearest
            distance[known] = np.linalg.norm(self.within.whiten(rows - self.means[nearest]), axis=1)
        return class_id, distance


def fit_classes(projection: NDArray[np.float32], fit: NDArray[np.bool_], seed: int) -> Classes:
    """Classes of healthy prompts, float32 [n, P]: k-means on the rows of `fit`, the limit from the other rows.

    One class for each 64 rows that are fitted, at most 16; none where nothing was projected.
    """
    measured = _measured(projection)
    chosen = projection[fit & measured].astype(np.float64)
    if not len(chosen):
        return no_classes(projection.shape[1])
    space = fit_space(chosen)
    scaled = space.scaled(chosen)
    axes = np.linalg.svd(scaled - scaled.mean(axis=0), full_matrices=False)[2][:_DIRECTIONS].T
    points = scaled @ axes
    count = min(MOST_CLASSES, max(1, len(points) // _ROWS_A_CLASS))
    centroids = _k_means(points, count, np.random.default_rng(seed))
    member = np.argmin(_distances(points, centroids), axis=1)
    means = _means(chosen, member, len(centroids))
    found = Classes(space, axes, centroids, means, fit_space(chosen - means[member]), np.inf)
    others = projection[~fit & measured]
    _, distance = found.nearest(others if len(others) >= _FEWEST_DISTANCES else projection[measured])
    return replace(found, limit=float(np.quantile(distance, _WITHIN)))


def no_classes(width: int = 0) -> Classes:
    """Those of traffic whose prompts are not measured: requests are compared with all others."""
    space = fit_space(np.zeros((0, width)))
    none = np.zeros((0, width))
    return Classes(space, np.zeros((width, 0)), np.zeros((0, 0)), none, space, np.inf)


def _means(rows: NDArray[np.float64], member: NDArray[np.intp], count: int) -> NDArray[np.float64]:
    """Mean of each class's rows; 0 for a class without any."""
    sums = np.zeros((count, rows.shape[1]))
    np.add.at(sums, member, rows)
    return np.asarray(sums / np.maximum(np.bincount(member, minlength=count), 1)[:, None])


def _measured(projection: NDArray[np.float32]) -> NDArray[np.bool_]:
    if not projection.shape[1]:
        return np.zeros(len(projection), np.bool_)
    return np.asarray(np.all(np.isfinite(projection), axis=1))


def _k_means(points: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    centroids = _spread(points, count, rng)
    for _ in range(_ROUNDS):
        member = np.argmin(_distances(points, centroids), axis=1)
        used, member = np.unique(member, return_inverse=True)
        centroids = _means(points, member, len(used))
    return centroids


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

"""Values in, mergeable statistics out: count, weight, mean, M2, smallest and largest."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Statistics of many samples at once; every array has the same shape, one entry a sample set.

    count is the number of values measured, weight the sum of their weights (1 / sampling probability), mean and
    m2 = Σ w (x − mean)² are weighted, so that they estimate all traffic. An empty set has count 0, low +inf and
    high −inf. Merging is associative and commutative up to rounding. (Chan, Golub & LeVeque 1979)
    """

    count: NDArray[np.int64]
    weight: NDArray[np.float64]
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    @classmethod
    def empty(cls, shape: int | tuple[int, ...]) -> Self:
        """Sets without samples."""
        return cls(
            np.zeros(shape, np.int64),
            np.zeros(shape),
            np.zeros(shape),
            np.zeros(shape),
            np.full(shape, np.inf, np.float32),
            np.full(shape, -np.inf, np.float32),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of every array."""
        return self.count.shape

    def at(self, index: ArrayLike | slice | tuple[slice | ArrayLike, ...]) -> "Moments":
        """The sets at an index (a view where numpy gives one)."""
        i: NDArray[np.intp] = index  # type: ignore[assignment]  # every numpy index works; their union has no name
        return Moments(self.count[i], self.weight[i], self.mean[i], self.m2[i], self.low[i], self.high[i])

    def put(self, index: ArrayLike | slice | tuple[slice | ArrayLike, ...], sets: "Moments") -> None:
        """Replaces the sets at an index."""
        i: NDArray[np.intp] = index  # type: ignore[assignment]  # as in `at`
        self.count[i], self.weight[i], self.mean[i] = sets.count, sets.weight, sets.mean
        self.m2[i], self.low[i], self.high[i] = sets.m2, sets.low, sets.high

    def merge(self, other: "Moments") -> "Moments":
        """Statistics of both sample sets together, element by element."""
        weight = self.weight + other.weight
        share = np.divide(other.weight, weight, out=np.zeros_like(weight), where=weight > 0)
        delta = other.mean - self.mean
        return Moments(
            self.count + other.count,
            weight,
            self.mean + delta * share,
            self.m2 + other.m2 + delta * delta * share * self.weight,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    def over(self, axis: int) -> "Moments":
        """Statistics of all sets along an axis together."""
        weight = self.weight.sum(axis)
        safe = np.where(weight > 0, weight, 1)
        mean = (self.weight * self.mean).sum(axis) / safe
        spread = self.weight * (self.mean - np.expand_dims(mean, axis)) ** 2
        return Moments(
            self.count.sum(axis),
            weight,
            mean,
            (self.m2 + spread).sum(axis),
            self.low.min(axis, initial=np.inf),
            self.high.max(axis, initial=-np.inf),
        )

    def grouped(self, group: NDArray[np.intp], groups: int) -> "Moments":
        """Statistics of the sets of each group together. self: [n]; group: [n] below groups → [groups]."""
        order = np.argsort(group, kind="stable")
        sets, sorted_group = self.at(order), group[order]
        weight = np.bincount(group, self.weight, groups)
        mean = np.bincount(group, self.weight * self.mean, groups) / np.where(weight > 0, weight, 1)
        result = Moments.empty(groups)
        result.weight[:], result.mean[:] = weight, mean
        result.count[:] = np.bincount(group, self.count, groups).astype(np.int64)
        result.m2[:] = np.bincount(group, self.m2 + self.weight * (self.mean - mean[group]) ** 2, groups)
        if len(group):
            starts = np.flatnonzero(np.diff(sorted_group, prepend=-1))
            result.low[sorted_group[starts]] = np.minimum.reduceat(sets.low, starts)
            result.high[sorted_group[starts]] = np.maximum.reduceat(sets.high, starts)
        return result

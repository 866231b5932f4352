"""Deviations of requests from a reference in, those of the last ticks together, and what chance makes of them, out.

For people there is the distance ‖mean of φ(z) − φ̄_k‖ over the window, and how large chance alone makes it: the mean of
n healthy clusters, of which classes k have the shares w_k, is a nearly normal vector of covariance Σ/n about an error
of at most ε = √(Σ w_k² ε_k²), because the errors of the classes' means are independent, so that

    P(distance > ε + √(tr Σ/n) + √(2 λ ln(1/α)/n)) ≤ α

by the concentration of a Lipschitz function of a normal vector (Boucheron, Lugosi & Massart 2013, theorem 5.6). n is
the number of clusters that weigh as much as those that came, (Σ m)²/Σ m²: requests of one caller may all be alike.
"""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

WINDOW_TICKS = 6

_LOOK_CHANCE = 1e-3
"""α: of so many healthy looks at the distance one is beyond what chance is said to make of it."""
_CLUSTERS_KEPT = 2048
"""Of a tick, to know how many there are: with more of them the bound would be a little lower than is said."""
_FARTHEST = 2.0


class Distance(NamedTuple):
    """How far the last ticks are from the reference, and how far chance alone would have them; both in [0, 2]."""

    value: float
    threshold: float


class Window:
    """The tick that is open and those before it, WINDOW_TICKS together.

    size: of a deviation; healthy: ε, tr Σ and λ of each class, float64 [C, 3], NaN for one that gives no deviations.
    """

    def __init__(self, size: int, healthy: NDArray[np.float64]) -> None:
        self._healthy = np.nan_to_num(healthy)
        self._apart = np.zeros((WINDOW_TICKS, size))
        self._counts = np.zeros((WINDOW_TICKS, len(healthy)))
        self._clusters = deque([np.zeros(0, np.uint64)], WINDOW_TICKS)

    def add(
        self, apart: NDArray[np.float64], class_id: NDArray[np.intp], cluster: NDArray[np.uint64]
    ) -> None:
        """Takes n requests. apart: [n, size]; class_id: places in healthy, from behind where negative; cluster: [n]."""
        self._apart[0] += apart.sum(axis=0)
        classes = self._counts.shape[1]
        self._counts[0] += np.bincount(class_id % classes, minlength=classes)
        self._clusters[0] = np.concatenate([self._clusters[0], cluster])[:_CLUSTERS_KEPT]

    def roll(self) -> None:
        """Opens the next tick; the oldest is forgotten."""
        for sums in (self._apart, self._counts):
            sums[1:] = sums[:-1]
            sums[0] = 0.0
        self._clusters.appendleft(np.zeros(0, np.uint64))

    @property
    def direction(self) -> NDArray[np.float64]:
        """Where the deviations point together, of length 1; 0 while there is none."""
        total = np.asarray(self._apart.sum(axis=0))
        length = float(np.linalg.norm(total))
        return total / length if length > 0 else np.zeros_like(total)

    @property
    def distance(self) -> Distance:
        """Length of the mean deviation, and of what chance makes of it; NaN while nothing came."""
        weight = self._counts.sum()
        _, counts = np.unique(np.concatenate(self._clusters), return_counts=True)
        if not weight or not counts.size:
            return Distance(math.nan, math.nan)
        n = float(counts.sum()) ** 2 / float((counts.astype(np.float64) ** 2).sum())
        share = self._counts.sum(axis=0) / weight
        epsilon = float(np.linalg.norm(share * self._healthy[:, 0]))
        trace, spread = (share @ self._healthy[:, 1:]).tolist()
        chance = epsilon + math.sqrt(trace / n) + math.sqrt(2 * spread * math.log(1 / _LOOK_CHANCE) / n)
        return Distance(float(np.linalg.norm(self._apart.sum(axis=0) / weight)), min(chance, _FARTHEST))

    # Any: arrays of several types.
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state."""
        clusters = {f"clusters_{tick}": of for tick, of in enumerate(self._clusters)}
        return {"window": self._apart, "counts": self._counts, **clusters}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Puts a state in place of this one."""
        if "counts" not in arrays:  # saved before there was a threshold: the window begins anew
            return
        self._apart, self._counts = arrays["window"], arrays["counts"]
        kept = sum(name.startswith("clusters_") for name in arrays)
        self._clusters = deque((arrays[f"clusters_{tick}"] for tick in range(kept)), WINDOW_TICKS)

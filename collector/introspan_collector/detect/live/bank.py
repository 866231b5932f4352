"""Requests and a reference in, evidence out: where each feature lies among those of healthy requests of its cell.

U = F(x−) + V · (F(x) − F(x−)), F the distribution of the cell's N₀ reference rows, V uniform by hash of request and
feature. X = 1{U > .95} (high), 1{U < .05} (low), U (up), 1 − U (down).

Why the bounds hold. The N₀ rows are one each of as many clusters in windows of a tick, so they are independent
draws from what a tick's mean of cluster means averages over.
- Tails: without ties U > .95 means that x is at least the k-th largest reference value, k = ⌈.05 N₀⌉, and the chance
  of that given the reference is Beta(k, N₀ + 1 − k). With ties the count behind the cut is a sum of independent
  numbers in [0, 1] in place of a binomial one, whose tail is at most e times as heavy (Bentkus 2004, Annals of
  Probability 32:1650): hence chance / e and k + 1.
- Ranks: E[U | reference] is the mean of N₀ independent numbers, each at most as spread as a uniform one: see
  tolerance.mean_bound.
- Cells differ in N₀ and so in m. X of a cell is multiplied by (smallest m of all cells) / m, so that one bound
  holds whatever the mixture of cells, and a large cell loses nothing by a small one beside it.
- chance = δ/2K over all K sides of features in cells (Reference.chance): with probability ≥ 1 − δ all bounds hold,
  those of the other detectors too.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.live.ranks import Ranks
from introspan_collector.detect.reference.placement import Placement
from introspan_collector.detect.reference.reference import Reference
from introspan_collector.detect.sample import Sample
from introspan_collector.detect.sequential.evidence import Evidence, Stream
from introspan_collector.detect.sequential.tolerance import mean_bound, tail_bound

SIDES = ("high", "low", "up", "down")
TAIL = 0.05


class Bank:
    """Compares requests with one reference. Has no state."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._ranks = {kind: Ranks(population) for kind, population in reference.populations.items()}
        self._weights = {kind: _weights(ranks.sizes, reference.chance) for kind, ranks in self._ranks.items()}
        identity = reference.identity
        self._streams = {
            kind: tuple(
                Stream(
                    identity.model, "", identity.adapter, "bank", kind.value, name.signal, name.layer, side
                )
                for side in SIDES
                for name in population.names
            )
            for kind, population in reference.populations.items()
        }

    def u(self, sample: Sample, placement: Placement) -> NDArray[np.float64]:
        """U of each feature of requests of a kind that the reference has, float64 [n, F], NaN where not measured."""
        return self._ranks[sample.kind].u(sample, placement.cell)

    def evidence(
        self, sample: Sample, placement: Placement, u: NDArray[np.float64] | None = None
    ) -> Evidence:
        """X of each request for 4·F streams, from its U where the caller has it already."""
        if u is None:
            u = self.u(sample, placement)
        weight, bound = self._weights[sample.kind]
        x = np.stack(
            [np.where(np.isnan(u), np.nan, u > 1 - TAIL), np.where(np.isnan(u), np.nan, u < TAIL), u, 1 - u],
            axis=1,
        )
        scaled = (x * weight[placement.cell]).reshape(len(sample), -1)
        return Evidence(self._streams[sample.kind], bound.ravel(), scaled, sample.cluster)


@lru_cache(maxsize=4096)
def bounds(size: int, chance: float) -> tuple[float, float]:
    """Bounds of a tail and of a rank, U or 1 − U, in a cell of so many rows, each wrong with this chance."""
    if not size:
        return 1.0, 1.0
    below = math.ceil(TAIL * size)
    return tail_bound(below + 1, size, chance / math.e), mean_bound(size, chance)


def _weights(sizes: NDArray[np.int64], chance: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Factor of X, float64 [cells, 4, F], and m, float64 [4, F], from N₀ of cells and features."""
    found, place = np.unique(sizes, return_inverse=True)
    pairs = np.array([bounds(int(size), chance) for size in found])
    tail, rank = pairs[place.reshape(sizes.shape)].transpose(2, 0, 1)
    by_cell = np.stack([tail, tail, rank, rank], axis=1)
    bound = by_cell.min(axis=0)
    return bound / by_cell, bound

"""Requests and a reference in, evidence out: requests more unusual than all but a few that the reference scored.

A request has two scores: that of its rarest feature (scores.py), fitted on one half of the reference; and, of its
prompt, the distance from its class. n requests of the other half are scored alike, and X = 1{the score exceeds the k-th
largest of them} for each k in BEYOND: k = 1 for faults like nothing healthy, the others for what is merely odd.

Given the calibrated scores the chance of X is Beta(k, n + 1 − k) distributed over references, whatever the score is
(ties only lower it), so m is its quantile at 1 − chance: for n = 20,000 one in 2,300 where k = 1, and not eight times
as much but one in 900 where k = 8. The scores of all cells are taken together, because rare faults need a large n: m is
for the reference's mixture of cells.
"""

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.reference.alignment import aligned
from introspan_collector.detect.reference.placement import Placement
from introspan_collector.detect.reference.reference import Population, Reference
from introspan_collector.detect.reference.scores import Scale, largest
from introspan_collector.detect.sample import Feature, Sample
from introspan_collector.detect.sequential.evidence import BEYOND_ALL, OUTSIDE, Evidence, Stream
from introspan_collector.detect.sequential.tolerance import tail_bound

BEYOND = (1, 8, 64)
"""k."""


class Extremes:
    """Streams for each kind about no single signal, signal "", and for prompts about their distance. Has no state."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        populations = reference.populations
        chance = reference.chance_of(
            "extremes", sum(len(BEYOND) * len(_known(p)) for p in populations.values())
        )
        self._bounds = {
            kind: np.array([_bound(k, len(scores), chance) for scores in _known(population) for k in BEYOND])
            for kind, population in populations.items()
        }
        self._cuts = {
            kind: np.array([[_cut(k, scores) for k in BEYOND] for scores in _known(population)])
            for kind, population in populations.items()
        }
        who = (reference.identity.model, "", reference.identity.adapter, "extremes")
        sides = tuple(BEYOND_ALL if k == 1 else f"{BEYOND_ALL} but {k - 1}" for k in BEYOND)
        self._streams = {
            kind: tuple(
                Stream(*who, kind.value, signal, -1, side)
                for signal in ("", OUTSIDE)[: len(_known(population))]
                for side in sides
            )
            for kind, population in populations.items()
        }

    def evidence(
        self, sample: Sample, placement: Placement, score: NDArray[np.float32] | None = None
    ) -> Evidence:
        """X of each request for three streams a score, from the first score where the caller has it already.

        sample must be of a kind that the reference has.
        """
        if score is None:
            score, _ = self.scored(sample, placement)
        cuts, bound = self._cuts[sample.kind], self._bounds[sample.kind]
        far = placement.distance.astype(np.float32)
        scores = np.stack([score, far], axis=1)[:, : len(cuts), None]
        x = np.where(np.isnan(scores) | np.isnan(cuts), np.nan, scores > cuts)
        return Evidence(self._streams[sample.kind], bound, x.reshape(len(sample), -1), sample.cluster)

    def worst(self, sample: Sample, placement: Placement) -> tuple[NDArray[np.float32], tuple[Feature, ...]]:
        """Score of each request, float32 [n], and the feature behind it: what to show of an exemplar."""
        score, place = self.scored(sample, placement)
        names = self._reference.populations[sample.kind].names
        return score, tuple(names[i] for i in place.tolist())

    def scored(self, sample: Sample, placement: Placement) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """Score of each request, float32 [n], and which feature of the reference is behind it, intp [n]."""
        population = self._reference.populations[sample.kind]
        features = aligned(sample.features, sample.names, population.names)
        cell = placement.cell
        return largest(features, Scale(population.centre[cell], population.spread[cell], population.tails))


def _known(population: Population) -> tuple[NDArray[np.float32], ...]:
    """Calibrated scores of each sort that there is."""
    return (population.scores, population.distances) if len(population.distances) else (population.scores,)


def _bound(k: int, size: int, chance: float) -> float:
    return tail_bound(k, size, chance) if k <= size else 1.0


def _cut(k: int, scores: NDArray[np.float32]) -> float:
    """The k-th largest score; NaN where there are not as many."""
    return float(scores[-k]) if k <= len(scores) else float("nan")

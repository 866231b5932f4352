"""Requests and a reference in, evidence out: requests more unusual than every healthy one the reference scored.

The score of a request is its largest robust z over features, median and spread from the half of the reference that was
fitted. p = (1 + #{n calibrated scores ≥ score}) / (n + 1), X = 1{p ≤ 1/(n + 1)}: the score exceeds all n.
Given the calibrated scores, that chance is Beta(1, n), so m = 1 − chance^(1/n) (ties only lower it). The scores of all
cells are taken together, because rare faults need a large n: m is for the reference's mixture of cells.
"""

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.reference.alignment import aligned
from introspan_collector.detect.reference.placement import Placement
from introspan_collector.detect.reference.reference import Identity, Reference
from introspan_collector.detect.reference.scores import largest
from introspan_collector.detect.sample import Feature, Sample
from introspan_collector.detect.sequential.evidence import Evidence, Stream
from introspan_collector.detect.sequential.tolerance import tail_bound
from introspan_wire.signals import Kind


class Extremes:
    """One stream for each kind, about no single signal: signal "", layer −1, side "high". Has no state."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._bounds = {
            kind: tail_bound(1, len(population.scores), reference.chance) if len(population.scores) else 1.0
            for kind, population in reference.populations.items()
        }

        self._streams = {kind: (_stream(reference.identity, kind),) for kind in reference.populations}

    def evidence(
        self, sample: Sample, placement: Placement, score: NDArray[np.float32] | None = None
    ) -> Evidence:
        """X of each request for one stream, from its score where the caller has it already.

        sample must be of a kind that the reference has.
        """
        scores = self._reference.populations[sample.kind].scores
        if score is None:
            score, _ = self.scored(sample, placement)
        x = (
            np.where(np.isnan(score), np.nan, score > scores[-1])
            if len(scores)
            else np.full(len(score), np.nan)
        )
        bound = np.array([self._bounds[sample.kind]])
        return Evidence(self._streams[sample.kind], bound, x[:, None].astype(np.float64), sample.cluster)

    def worst(self, sample: Sample, placement: Placement) -> tuple[NDArray[np.float32], tuple[Feature, ...]]:
        """Score of each request, float32 [n], and the feature behind it: what to show of an exemplar."""
        score, place = self.scored(sample, placement)
        names = self._reference.populations[sample.kind].names
        return score, tuple(names[i] for i in place.tolist())

    def scored(self, sample: Sample, placement: Placement) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """Score of each request, float32 [n], and which feature of the reference is behind it, intp [n]."""
        population = self._reference.populations[sample.kind]
        features = aligned(sample.features, sample.names, population.names)
        return largest(features, population.centre[placement.cell], population.spread[placement.cell])


def _stream(identity: Identity, kind: Kind) -> Stream:
    return Stream(identity.model, "", identity.adapter, "extremes", kind.value, "", -1, "high")

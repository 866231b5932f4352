"""Requests with their classes in, evidence that the mixture of traffic has changed out.

X = 1{the request is of class k} (more), its opposite (fewer), and 1{it is outside all classes}. m bounds the share in
the population from above, given the reference: if k of N₀ rows are of the class, by the beta quantile at k + 1. Where
there is one class, all that is not of it lies outside: that is the last stream's, whose bound knows how the limit was
chosen, and the other two say nothing.
"""

import numpy as np

from introspan_collector.detect.reference.classes import NO_CLASS
from introspan_collector.detect.reference.placement import Placement
from introspan_collector.detect.reference.reference import Reference
from introspan_collector.detect.sample import Sample
from introspan_collector.detect.sequential.evidence import OUTSIDE, Evidence, Stream
from introspan_collector.detect.sequential.tolerance import tail_bound
from introspan_wire.signals import Kind


class Frequencies:
    """Compares the classes of prompts with those of one reference. Has no state."""

    def __init__(self, reference: Reference) -> None:
        identity = reference.identity
        population = reference.populations[Kind.PROMPT]
        known = population.class_id != NO_CLASS
        size = int(known.sum())
        self._classes = len(reference.classes)
        chance = reference.chance_of("classes", 2 * self._classes + 1)
        # As in evidence: what lies outside has a nearest class, but is not of it.
        inside = known & ~population.outside
        counts = np.bincount(population.class_id[inside], minlength=self._classes)
        # Classes are fitted to the others, which lie nearer to them than requests that come.
        apart = known & ~population.fit
        several = size if self._classes > 1 else 0
        more = [_share(int(count), several, chance) for count in counts]
        outside = _share(int(np.count_nonzero(apart & population.outside)), int(apart.sum()), chance)
        fewer = [_share(size - int(count), several, chance) for count in counts]
        self._bound = np.array([*more, *fewer, outside])

        def stream(signal: str, side: str) -> Stream:
            return Stream(identity.model, "", identity.adapter, "classes", "prompt", signal, -1, side)

        names = [f"class.{k}" for k in range(self._classes)]
        self._streams = (
            *(stream(name, "more") for name in names),
            *(stream(name, "fewer") for name in names),
            stream(OUTSIDE, "outside"),
        )

    def evidence(self, sample: Sample, placement: Placement) -> Evidence:
        """X of each prompt for 2·C + 1 streams; NaN where the class is not known."""
        known = placement.class_id != NO_CLASS
        is_of = placement.class_id[:, None] == np.arange(self._classes)
        is_of &= ~placement.outside[:, None]
        x = np.concatenate([is_of, ~is_of, placement.outside[:, None]], axis=1).astype(np.float64)
        x[~known] = np.nan
        return Evidence(self._streams, self._bound, x, sample.cluster)


def _share(count: int, size: int, chance: float) -> float:
    return tail_bound(count + 1, size, chance) if size else 1.0

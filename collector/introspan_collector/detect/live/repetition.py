"""Answers and a reference in, evidence that more of them than usual repeat themselves out.

X = 1{the periodic tail of a decoded row has at least so many tokens}: 64, or more where tables and rules make one
healthy answer in a hundred as long. The threshold is from the half of the reference that was fitted; k of the other
half's n rows reach it, so that the share of healthy rows that do is below the beta quantile at k + 1 for all but a
fraction `chance` of references: m = tail_bound(k + 1, n, chance). Of all classes and lengths together, because a cell
alone could only bound a rate of several in a hundred.
"""

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.reference.alignment import aligned
from introspan_collector.detect.reference.reference import Population, Reference
from introspan_collector.detect.sample import REPETITION, Sample
from introspan_collector.detect.sequential.evidence import Evidence, Stream
from introspan_collector.detect.sequential.tolerance import tail_bound
from introspan_wire.signals import Kind

LOOP_TOKENS = 64
"""Shorter periodic tails are no loop: lists and dialogues have them."""

_USUAL = 0.99


class Repetition:
    """Compares decoded rows with those of one reference, which must have some. Has no state."""

    def __init__(self, reference: Reference) -> None:
        identity, population = reference.identity, reference.populations[Kind.DECODED]
        fitted, others = _tails(population, fit=True), _tails(population, fit=False)
        usual = float(np.quantile(fitted, _USUAL)) if len(fitted) else 0.0
        self._threshold = max(LOOP_TOKENS, usual + 1)
        looping, size = int(np.count_nonzero(others >= self._threshold)), len(others)
        chance = reference.chance_of("repetition", 1)
        self._bound = np.array([tail_bound(looping + 1, size, chance) if size else 1.0])
        self._streams = (
            Stream(identity.model, "", identity.adapter, "repetition", "decoded", *REPETITION, "loops"),
        )

    def evidence(self, sample: Sample) -> Evidence:
        """X of each decoded row for one stream; NaN where it was not measured."""
        tail = aligned(sample.features, sample.names, (REPETITION,))[:, 0]
        x = np.where(np.isnan(tail), np.nan, tail >= self._threshold)
        return Evidence(self._streams, self._bound, x[:, None], sample.cluster)


def can_repeat(reference: Reference) -> bool:
    """Whether the reference knows how often decoded rows repeat themselves."""
    population = reference.populations.get(Kind.DECODED)
    return population is not None and REPETITION in population.names


def _tails(population: Population, *, fit: bool) -> NDArray[np.float32]:
    tail = population.features[population.fit == fit, population.names.index(REPETITION)]
    return np.asarray(tail[~np.isnan(tail)])

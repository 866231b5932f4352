"""Rounds of a changed model in, what the canary and what output-only baselines say of them out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.faults.answers import Round, mean_states
from bench.faults.protocol import PROTOCOL
from bench.faults.store import Sample
from bench.faults.tracking import Tracker, Vector
from introspan_collector.detect.canary.baseline import build
from introspan_collector.detect.canary.comparison import Comparison, compare


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One change under the canary. rounds: the product's comparison of each.

    tracked: log-probabilities [4, 20] of each round; averaged: the comparison of averaged states, where there is one;
    rank_limit: floors beyond which a round is further off than all healthy ones.
    """

    family: str
    name: str
    dtype: str
    layer: int | None
    is_other: bool
    rounds: tuple[Comparison, ...]
    tracked: tuple[Vector, ...]
    averaged: Comparison | None = None
    rank_limit: float = float("inf")

    @property
    def pages(self) -> bool:
        """Whether the first two rounds page: both deviate, and the second matters to the answers."""
        first = self.rounds[:2]
        return len(first) == 2 and all(one.deviates for one in first) and not first[1].equivalent

    @property
    def kl_nats(self) -> float:
        """Mean over rounds of the divergence from the healthy next-token distributions."""
        return float(np.mean([one.kl_nats for one in self.rounds]))

    @property
    def is_material(self) -> bool:
        """Whether it changes the model's output."""
        return self.kl_nats >= PROTOCOL["material_kl_nats"] or any(one.nonfinite for one in self.rounds)

    @property
    def located(self) -> int | None:
        """The layer that is named: by averages where the protocol averages, else by the second round, which pages."""
        return (self.rounds[-1] if self.averaged is None else self.averaged).layer

    def first_beyond(self, floors: float) -> int | None:
        """The layer before the first state that exceeds so many floors, −1 for the embedding; None where none does."""
        used = self.rounds[-1] if self.averaged is None else self.averaged
        deviating = np.flatnonzero(np.array(used.state_ratio) > floors)
        return int(deviating[0]) - 1 if deviating.size else None


class Judge:
    """Knows healthy rounds of a model in one dtype, and compares others with them by the product's own code."""

    def __init__(self, healthy: Sequence[Round], dtype: str) -> None:
        self._baseline = build(healthy)
        self._tracker = Tracker(healthy)
        self._count = PROTOCOL["rounds_averaged_to_name_a_layer"][dtype]
        self._averaged = None
        if self._count > 1:
            # As many means of rounds: a floor of their own, as they vary less.
            random = np.random.default_rng(PROTOCOL["seed"])
            drawn = [random.choice(len(healthy), self._count, replace=False) for _ in healthy]
            self._averaged = build([mean_states([healthy[i] for i in some]) for some in drawn])

    @property
    def reference(self) -> Vector:
        """What log-probability tracking expects."""
        return self._tracker.reference

    def trial(self, sample: Sample) -> Trial:
        """The sample's first two rounds compared; all of its rounds averaged, where there are as many as it takes."""
        first = sample.rounds[: PROTOCOL["rounds_of_a_trial"]]
        averaged = None
        if self._averaged is not None and len(sample.rounds) >= self._count:
            averaged = compare(self._averaged, mean_states(sample.rounds[: self._count]))
        return Trial(
            sample.family,
            sample.name,
            sample.dtype,
            sample.layer,
            sample.is_other,
            tuple(compare(self._baseline, one) for one in first),
            tuple(self._tracker.logprobs(one) for one in first),
            averaged,
            self._baseline.rank_limit,
        )

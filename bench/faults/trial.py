"""Rounds of a changed model in, what the canary and what output-only baselines say of them out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bench.faults import answers
from bench.faults.protocol import PROTOCOL
from bench.faults.store import Record
from bench.faults.subject import Subject
from introspan_collector.detect.canary import PAGE_RATIO, Comparison, compare


@dataclass(frozen=True, slots=True)
class Trial:
    """One change under the canary. rounds: the product's comparison of each; named: layers that are named by floors.

    tracked: log-probabilities [4][20] of each round; averaged: the comparison of averaged states, where there is one.
    """

    family: str
    name: str
    dtype: str
    layer: int | None
    is_other: bool
    rounds: tuple[Comparison, ...]
    tracked: tuple[Any, ...]  # nested lists of numbers
    averaged: Comparison | None

    @property
    def pages(self) -> bool:
        """Whether the first two rounds page: both deviate, and the second matters to the answers."""
        return (
            len(self.rounds) >= 2
            and all(one.deviates for one in self.rounds[:2])
            and not self.rounds[1].equivalent
        )

    @property
    def is_material(self) -> bool:
        """Whether it changes the model's output."""
        kl = float(np.mean([one.kl_nats for one in self.rounds]))
        return kl >= PROTOCOL["material_kl_nats"] or any(one.nonfinite for one in self.rounds)

    def located(self, floors: float = PAGE_RATIO) -> int | None:
        """The layer before the first state that deviates, −1 for the embedding; None where none does."""
        used = self.rounds[0] if self.averaged is None else self.averaged
        return located(used.state_ratio, floors)


def located(state_ratio: Sequence[float], floors: float) -> int | None:
    """The layer before the first that exceeds so many floors, −1 for the embedding; None where none does."""
    deviating = np.flatnonzero(np.array(state_ratio) > floors)
    return int(deviating[0]) - 1 if deviating.size else None


def judge(
    subject: Subject, label: tuple[str, str, int | None], drawn: Sequence[answers.Round], *, is_other: bool
) -> Trial:
    """A trial from rounds; as many of them are averaged as the protocol says. label: family, name, layer."""
    family, name, layer = label
    first = drawn[: PROTOCOL["rounds_of_a_trial"]]
    averaged = None
    count = PROTOCOL["rounds_averaged_to_name_a_layer"][subject.dtype]
    if subject.averaged is not None and len(drawn) >= count:
        averaged = compare(subject.averaged, answers.mean_states(drawn[:count]))
    return Trial(
        family,
        name,
        subject.dtype,
        layer,
        is_other,
        tuple(compare(subject.baseline, one) for one in first),
        tuple(subject.tracker.logprobs(one).tolist() for one in first),
        averaged,
    )


def record(trial: Trial) -> Record:
    """The trial as JSON."""
    return asdict(trial)


def trial(found: Mapping[str, Any]) -> Trial:
    """The trial of a record. Any: JSON."""
    kept = dict(found)
    kept["rounds"] = tuple(_comparison(one) for one in found["rounds"])
    kept["tracked"] = tuple(found["tracked"])
    kept["averaged"] = None if found["averaged"] is None else _comparison(found["averaged"])
    return Trial(**kept)


def _comparison(found: Mapping[str, Any]) -> Comparison:
    return Comparison(**{**found, "state_ratio": tuple(found["state_ratio"])})

"""Many healthy answers to the same questions in; their means, and how far apart such answers lie by chance, out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.canary.answer import Answer
from introspan_collector.detect.canary.expected import (
    NUMBER_ROUNDING,
    Question,
    expected,
    quantile,
    without_own_part,
)
from introspan_collector.detect.canary.place import pooled
from introspan_collector.detect.canary.spread import Squares, pooled_squares
from introspan_collector.detect.canary.twins import TWINS, twin_distances
from introspan_collector.suite import QUESTIONS

FEWEST_ROUNDS = 64
"""Rounds that a baseline should have: its 0.99 quantile means little below. Fewer are for trying things out."""

LARGEST_RATIO = 8.0
"""A distance of so many floors is no chance, neither from a baseline nor among the rounds that make one."""

# Where most rounds are equal to the last bit, nothing is known of how others in the batch change the rounding: then
# the largest of these distances says nothing, and otherwise nothing below two floors.
_VARIED, _LEAST_RANK = 0.25, 2.0

_ORDER = [question.name for question in QUESTIONS]


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """What a model answers while it is healthy. layer_count: 0 where no states were measured.

    distances: sorted float64 [rounds], of each round to all others, in floors that it has no part in. step_limit:
    float64 [L + 1], how far all steps of a round together were off at most (place.py). rank_limit: distance beyond
    which a round counts as further off than all of these. replicas: whose rounds these are. spread_floors: root mean
    square of all standardised outputs, and of all states, that chance exceeds once in a hundred. largest_limit: as
    rank_limit, of the largest of all distances.
    """

    model: str
    fingerprint: str
    engine_version: str
    dtype: str
    layer_count: int
    suite: str
    questions: Mapping[str, Question]
    distances: NDArray[np.float64]
    step_limit: NDArray[np.float64]
    rank_limit: float
    replicas: tuple[str, ...] = ()
    spread_floors: tuple[float, float] = (1.0, 1.0)
    largest_limit: float = LARGEST_RATIO

    @property
    def identity(self) -> tuple[str, str, str]:
        """What it is of: fingerprint, version of the engine, element type."""
        return self.fingerprint, self.engine_version, self.dtype


def build(rounds: Sequence[Mapping[str, Answer]], fewest: int = FEWEST_ROUNDS) -> Baseline:
    """A baseline from rounds of answers by question. Raises ValueError for too few, or rounds that do not agree."""
    if len(rounds) < max(fewest, 2):
        raise ValueError(f"rounds must be >= {max(fewest, 2)}, got {len(rounds)}: ask the canary more often")
    names = set(rounds[0])
    if any(set(answers) != names for answers in rounds):
        raise ValueError("rounds must have the same questions: leave out those that were cut short")
    first = next(iter(rounds[0].values()))
    depth = _depth(rounds)
    largest, consistency, found = np.zeros(len(rounds)), np.zeros(len(rounds)), []
    questions: dict[str, Question] = {}
    for name in sorted(names - _wavering(rounds), key=_ORDER.index):
        one = expected(name, [answers[name] for answers in rounds], depth)
        questions[name], apart = _with_twin(name, one.question, rounds, questions)
        largest = np.maximum(largest, one.ratio)
        consistency = np.maximum(consistency, apart)
        found.append(one)
    _check_agreement(largest)
    varied = len(np.unique(largest)) >= _VARIED * len(rounds)
    step_limit = pooled(np.concatenate([one.step_ratio for one in found], axis=1)).max(axis=0)
    floors, ratios = [], consistency
    for parts in ([one.outputs for one in found], [one.states for one in found]):
        floor, ratio = _spread(parts, 1.0 if varied else 1 / NUMBER_ROUNDING)
        floors.append(floor)
        ratios = np.maximum(ratios, ratio)
    origin = first.origin
    return Baseline(
        origin.model,
        origin.fingerprint,
        origin.engine_version,
        origin.dtype,
        max(depth - 1, 0),
        first.suite,
        questions,
        np.sort(ratios),
        np.maximum(step_limit, 1.0 if varied else LARGEST_RATIO),
        max(float(ratios.max()), _LEAST_RANK) if varied else LARGEST_RATIO,
        tuple(sorted({answer.origin.replica for answers in rounds for answer in answers.values()})),
        (floors[0], floors[1]),
        max(float(np.maximum(largest, ratios).max()), _LEAST_RANK) if varied else LARGEST_RATIO,
    )


def _check_agreement(ratios: NDArray[np.float64]) -> None:
    # One that is far off moves the means of the others: of n rounds it is at most n − 1 times as far off as they are.
    most = min(LARGEST_RATIO, max(2.5, 0.6 * (len(ratios) - 1)))
    if (odd := int(np.count_nonzero(ratios > most))) > 0:
        raise ValueError(
            f"rounds must agree with each other, but {odd} of {len(ratios)} are more than {most:.2g} times as far off "
            f"as chance explains (the worst {ratios.max():.3g} times): find out what was wrong then; others take their "
            "place in time"
        )


def _spread(parts: Sequence[Squares], least: float) -> tuple[float, NDArray[np.float64]]:
    """The floor of all numbers of a kind together, and how many floors without it each round is off."""
    distance = pooled_squares(parts)
    ratio = distance / np.maximum(without_own_part(distance, quantile), least)
    return max(float(quantile(distance)), least), ratio


def _depth(rounds: Sequence[Mapping[str, Answer]]) -> int:
    """Places at which states were measured, 0 for none."""
    depths = {
        0 if answer.states is None else answer.states.values.shape[1]
        for answers in rounds
        for answer in answers.values()
    }
    if len(depths) > 1:
        raise ValueError(
            f"rounds must be measured at as many layers each, got {sorted(depths)}: replicas differ in their model or "
            "in INTROSPAN_CANARY_KEY"
        )
    return depths.pop()


def _wavering(rounds: Sequence[Mapping[str, Answer]]) -> set[str]:
    """Questions made of another one's answer, where greedy decoding wavers by itself: they ask not the same."""
    extended = [question.name for question in QUESTIONS if question.source == "extend"]
    return {
        name
        for name in extended
        if len({answers[name].outputs.token.tobytes() for answers in rounds if name in answers}) > 1
    }


def _with_twin(
    name: str, question: Question, rounds: Sequence[Mapping[str, Answer]], known: Mapping[str, Question]
) -> tuple[Question, NDArray[np.float64]]:
    """The question with the floor of its distance to the one that it is made of; of each round, floors without it.

    They may differ by more than chance, because they are computed by other kernels, but always by as much.
    """
    twin = TWINS.get(name)
    if twin is None or twin.of not in known:
        return question, np.zeros(len(rounds))
    floor = np.sqrt(2.0) * known[twin.of].state_floor[twin.row]
    apart = twin_distances(rounds, name, len(floor))
    ratio = (apart / np.maximum(floor, without_own_part(apart, quantile))).max(axis=1, initial=0.0)
    return replace(question, twin_floor=np.maximum(floor, quantile(apart))), ratio

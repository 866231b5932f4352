"""Many healthy answers to the same questions in; their means, and how far apart such answers lie by chance, out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.canary.answer import STATE_SIZE, Answer
from introspan_collector.detect.canary.measured import outputs_of, states_of
from introspan_collector.detect.canary.place import STEP_ROUNDING, length, mean, pooled, rms, steps_of
from introspan_collector.detect.canary.spread import Squares, deviation, pooled_squares, without_own
from introspan_collector.detect.canary.twins import TWINS, twin_distances
from introspan_collector.suite import QUESTIONS

FEWEST_ROUNDS = 64
"""Rounds that a baseline should have: its 0.99 quantile means little below. Fewer are for trying things out."""

LARGEST_RATIO = 8.0
"""A distance of so many floors is no chance, neither from a baseline nor among the rounds that make one."""

_QUANTILE = 0.99
_EPSILON = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7, "float64": 2.0**-52}
# Sixteen rounding errors, but at most 0.4 %: in bfloat16 sixteen would hide a fault of 10 %.
_ROUNDINGS, _LARGEST_ROUNDING = 16.0, 2.0**-8
# Where most rounds are equal to the last bit, nothing is known of how others in the batch change the rounding: then
# the largest of these distances says nothing, and otherwise nothing below two floors.
_VARIED, _LEAST_RANK = 0.25, 2.0
_LOGIT_SCALE = 10.0  # of raw logits, of which log-probabilities are differences
NUMBER_ROUNDING = 0.25
"""Of what rounding may do to a distance of many numbers, so much is taken for the deviation of each at least."""


_ORDER = [question.name for question in QUESTIONS]


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What is expected of one question. Rows of states: the last prompt token's, the last generated token's.

    position, token: int64 [n]; top_token: int32 [n, 20]; output_mean: float64 [n, 21], of the own token, then of
    the top tokens; output_floor: RMS that chance exceeds once in a hundred; state_mean: float64 [2, L + 1, 33], NaN
    where no states were measured; state_floor: float64 [2, L + 1]. step_mean [2, L + 1, 32] and step_floor [2, L + 1]
    are of what each layer adds (place.py). twin_floor: float64 [L + 1], of the distance to the same token of the
    question that this one is made of, computed in another way; 0 where it is made of none. output_deviation and
    state_deviation: of each number, as their means are shaped (spread.py). likeliest: int32 [n, k], every token that
    was the likeliest in one of the rounds, and −1 where there are fewer than k.
    """

    prompt_tokens: int
    position: NDArray[np.int64]
    token: NDArray[np.int64]
    top_token: NDArray[np.int32]
    output_mean: NDArray[np.float64]
    output_floor: float
    state_mean: NDArray[np.float64]
    state_floor: NDArray[np.float64]
    step_mean: NDArray[np.float64]
    step_floor: NDArray[np.float64]
    twin_floor: NDArray[np.float64]
    output_deviation: NDArray[np.float64]
    state_deviation: NDArray[np.float64]
    likeliest: NDArray[np.int32]


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
        one = _question(name, [answers[name] for answers in rounds], depth)
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
    ratio = distance / np.maximum(_without_own(distance, _quantile), least)
    return max(float(_quantile(distance)), least), ratio


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


def rounding(dtype: str) -> float:
    """The relative deviation that rounding alone may cause in a stream of that element type."""
    return min(_ROUNDINGS * _EPSILON.get(dtype, _LARGEST_ROUNDING), _LARGEST_ROUNDING)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """A question, and of each round its distance, and those of its steps [rounds, 2, L + 1], in floors without it.

    outputs and states: squares of all its numbers, without it too.
    """

    question: Question
    ratio: NDArray[np.float64]
    step_ratio: NDArray[np.float64]
    outputs: Squares
    states: Squares


def _question(name: str, answers: Sequence[Answer], depth: int) -> _Found:
    first = answers[0].outputs
    shared = _shared_positions(name, answers)
    outputs = np.stack([outputs_of(answer.outputs, first.top_token[:shared]) for answer in answers])
    states = np.stack([states_of(answer, depth) for answer in answers])
    if shared < len(first.token):
        states[:, 1] = np.nan
    # Distance to the mean of the others, which does not contain the answer itself.
    apart = len(answers) / (len(answers) - 1)
    output_mean, state_mean = mean(outputs), mean(states)
    steps = steps_of(states, state_mean)
    step_mean = mean(steps)
    output_distance = apart * rms(outputs - output_mean, (1, 2))
    state_distance = apart * length(states - state_mean)
    step_distance = apart * length(steps - step_mean)
    smallest = rounding(answers[0].origin.dtype)
    output_least, state_least = smallest * _LOGIT_SCALE, smallest * np.sqrt(STATE_SIZE)
    step_least = smallest * STEP_ROUNDING * np.sqrt(STATE_SIZE - 1)
    ratio = np.maximum(
        output_distance / np.maximum(_without_own(output_distance, _quantile), output_least),
        (state_distance / np.maximum(_without_own(state_distance, _quantile), state_least)).max(
            axis=(1, 2), initial=0.0
        ),
    )
    return _Found(
        Question(
            first.prompt_tokens,
            first.position[:shared],
            first.token[:shared],
            first.top_token[:shared],
            output_mean,
            max(float(_quantile(output_distance)), output_least),
            state_mean,
            np.maximum(_quantile(state_distance), state_least),
            step_mean,
            np.maximum(_root_mean_square(step_distance), step_least),
            np.zeros(depth),
            deviation(outputs, NUMBER_ROUNDING * output_least),
            deviation(states, NUMBER_ROUNDING * smallest),
            _likeliest(np.stack([answer.outputs.top_token[:shared, 0] for answer in answers])),
        ),
        ratio,
        step_distance / np.maximum(_without_own(step_distance, _root_mean_square), step_least),
        without_own(outputs, NUMBER_ROUNDING * output_least),
        without_own(states, NUMBER_ROUNDING * smallest),
    )


def _likeliest(top_token: NDArray[np.int32]) -> NDArray[np.int32]:
    """Every token that is the likeliest in one of the rounds [rounds, n] at a position, int32 [n, k]; −1 for fewer."""
    ordered = np.sort(top_token, axis=0)[::-1]
    is_another = np.ones(ordered.shape, np.bool_)
    is_another[1:] = ordered[1:] != ordered[:-1]
    most = int(is_another.sum(axis=0).max(initial=1))
    found: NDArray[np.int32] = np.sort(np.where(is_another, ordered, -1), axis=0)[::-1][:most].T
    return found


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
    ratio = (apart / np.maximum(floor, _without_own(apart, _quantile))).max(axis=1, initial=0.0)
    return replace(question, twin_floor=np.maximum(floor, _quantile(apart))), ratio


def _quantile(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.quantile(distance, _QUANTILE, axis=0)
    return found


def _root_mean_square(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    return rms(distance, (0,))


def _without_own(
    distance: NDArray[np.float64], floor: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """For each round the floor of all others: what is new has no part in its floor either."""
    return np.stack([floor(np.delete(distance, i, axis=0)) for i in range(len(distance))])


def _shared_positions(prompt: str, answers: Sequence[Answer]) -> int:
    """Positions at which all answers have the same text behind them and the same next token."""
    length = min(len(answer.outputs.token) for answer in answers)
    tokens = np.stack([answer.outputs.token[:length] for answer in answers])
    differs = np.flatnonzero((tokens != tokens[0]).any(axis=0))
    shared = length if not differs.size else int(differs[0])
    asked = answers[0].outputs.prompt_tokens
    own = int(np.count_nonzero(answers[0].outputs.position < asked - 1))
    if shared < own or any(answer.outputs.prompt_tokens != asked for answer in answers):
        raise ValueError(
            f"answers to the prompt {prompt!r} must be to the same tokens in every round: replicas differ in "
            "tokenizer or chat template; make them equal first"
        )
    return shared

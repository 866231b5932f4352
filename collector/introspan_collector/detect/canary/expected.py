"""Healthy answers to one question in; what is expected of the next one, and how far apart these are, out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.canary.answer import STATE_SIZE, Answer
from introspan_collector.detect.canary.measured import outputs_of, states_of
from introspan_collector.detect.canary.place import STEP_ROUNDING, length, mean, rms, steps_of
from introspan_collector.detect.canary.spread import Squares, deviation, without_own

NUMBER_ROUNDING = 0.25
"""Of what rounding may do to a distance of many numbers, so much is taken for the deviation of each at least."""

_QUANTILE = 0.99
_EPSILON = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7, "float64": 2.0**-52}
# Sixteen rounding errors, but at most 0.4 %: in bfloat16 sixteen would hide a fault of 10 %.
_ROUNDINGS, _LARGEST_ROUNDING = 16.0, 2.0**-8
_LOGIT_SCALE = 10.0  # of raw logits, of which log-probabilities are differences


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


def rounding(dtype: str) -> float:
    """The relative deviation that rounding alone may cause in a stream of that element type."""
    return min(_ROUNDINGS * _EPSILON.get(dtype, _LARGEST_ROUNDING), _LARGEST_ROUNDING)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A question, and of each round its distance, and those of its steps [rounds, 2, L + 1], in floors without it.

    outputs and states: squares of all its numbers, without it too.
    """

    question: Question
    ratio: NDArray[np.float64]
    step_ratio: NDArray[np.float64]
    outputs: Squares
    states: Squares


def expected(name: str, answers: Sequence[Answer], depth: int) -> Found:
    """What is expected of a question, from at least two answers to it. Raises ValueError where they are not to one."""
    first = answers[0].outputs
    shared = _shared_positions(name, answers)
    outputs = np.stack([outputs_of(answer.outputs, first.top_token[:shared]) for answer in answers])
    states = np.stack([states_of(answer, depth) for answer in answers])
    if shared < len(first.token):
        states[:, 1] = np.nan
    output_mean, state_mean = mean(outputs), mean(states)
    output_distance = _apart(answers) * rms(outputs - output_mean, (1, 2))
    state_distance = _apart(answers) * length(states - state_mean)
    smallest = rounding(answers[0].origin.dtype)
    output_least, state_least = smallest * _LOGIT_SCALE, smallest * np.sqrt(STATE_SIZE)
    steps = steps_of(states, state_mean)
    step_distance = _apart(answers) * length(steps - mean(steps))
    step_least = smallest * STEP_ROUNDING * np.sqrt(STATE_SIZE - 1)
    of_states = state_distance / np.maximum(without_own_part(state_distance, quantile), state_least)
    return Found(
        Question(
            first.prompt_tokens,
            first.position[:shared],
            first.token[:shared],
            first.top_token[:shared],
            output_mean,
            max(float(quantile(output_distance)), output_least),
            state_mean,
            np.maximum(quantile(state_distance), state_least),
            mean(steps),
            np.maximum(_root_mean_square(step_distance), step_least),
            np.zeros(depth),
            deviation(outputs, NUMBER_ROUNDING * output_least),
            deviation(states, NUMBER_ROUNDING * smallest),
            _likeliest(np.stack([answer.outputs.top_token[:shared, 0] for answer in answers])),
        ),
        np.maximum(
            output_distance / np.maximum(without_own_part(output_distance, quantile), output_least),
            of_states.max(axis=(1, 2), initial=0.0),
        ),
        step_distance / np.maximum(without_own_part(step_distance, _root_mean_square), step_least),
        without_own(outputs, NUMBER_ROUNDING * output_least),
        without_own(states, NUMBER_ROUNDING * smallest),
    )


def _apart(answers: Sequence[Answer]) -> float:
    """Times its distance to the mean of all, an answer is from the mean of the others."""
    return len(answers) / (len(answers) - 1)


def _likeliest(top_token: NDArray[np.int32]) -> NDArray[np.int32]:
    """Every token that is the likeliest in one of the rounds [rounds, n] at a position, int32 [n, k]; −1 for fewer."""
    ordered = np.sort(top_token, axis=0)[::-1]
    is_another = np.ones(ordered.shape, np.bool_)
    is_another[1:] = ordered[1:] != ordered[:-1]
    most = int(is_another.sum(axis=0).max(initial=1))
    found: NDArray[np.int32] = np.sort(np.where(is_another, ordered, -1), axis=0)[::-1][:most].T
    return found


def quantile(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distance of answers [rounds, …] that chance exceeds once in a hundred."""
    found: NDArray[np.float64] = np.quantile(distance, _QUANTILE, axis=0)
    return found


def _root_mean_square(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    return rms(distance, (0,))


def without_own_part(
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

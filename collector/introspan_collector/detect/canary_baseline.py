"""Many healthy answers to the same questions in; their means, and how far apart such answers lie by chance, out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.canary_answer import STATE_SIZE, Answer, Outputs
from introspan_collector.suite import QUESTIONS

FEWEST_ROUNDS = 64
"""Rounds that a baseline takes unless its operator says otherwise: its 0.99 quantile means little below."""

_QUANTILE = 0.99
_EPSILON = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7, "float64": 2.0**-52}
# Sixteen rounding errors, but at most 0.4 %: in bfloat16 sixteen would hide a fault of 10 %.
_ROUNDINGS, _LARGEST_ROUNDING = 16.0, 2.0**-8
_LOGIT_SCALE = 10.0  # of raw logits, of which log-probabilities are differences


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What is expected of one question. Rows of states: the last prompt token's, the last generated token's.

    position, token: int64 [n]; top_token: int64 [n, 20]; output_mean: float64 [n, 21], of the own token, then of
    the top tokens; output_floor: RMS that chance exceeds once in a hundred; state_mean: float64 [2, L + 1, 33], NaN
    where no states were measured; state_floor: float64 [2, L + 1].
    """

    prompt_tokens: int
    position: NDArray[np.int64]
    token: NDArray[np.int64]
    top_token: NDArray[np.int64]
    output_mean: NDArray[np.float64]
    output_floor: float
    state_mean: NDArray[np.float64]
    state_floor: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """What a model answers while it is healthy. distances: sorted float64 [rounds], of each round to all others."""

    model: str
    fingerprint: str
    engine_version: str
    dtype: str
    layer_count: int
    suite: str
    questions: Mapping[str, Question]
    distances: NDArray[np.float64]


def build(rounds: Sequence[Mapping[str, Answer]], fewest: int = FEWEST_ROUNDS) -> Baseline:
    """A baseline from rounds of answers by prompt. Raises ValueError for too few, or rounds that do not agree."""
    if len(rounds) < max(2, fewest):
        raise ValueError(f"rounds must be >= {max(2, fewest)}, got {len(rounds)}: ask the canary more often")
    prompts = set(rounds[0])
    if any(set(answers) != prompts for answers in rounds):
        raise ValueError("rounds must have the same prompts: leave out those that were cut short")
    ratios = np.zeros(len(rounds))
    questions = {}
    for prompt in sorted(prompts - _wavering(rounds)):
        questions[prompt], found = _question(prompt, [answers[prompt] for answers in rounds])
        ratios = np.maximum(ratios, found)
    origin = next(iter(rounds[0].values())).origin
    suite = next(iter(rounds[0].values())).suite
    return Baseline(
        origin.model,
        origin.fingerprint,
        origin.engine_version,
        origin.dtype,
        origin.layer_count,
        suite,
        questions,
        np.sort(ratios),
    )


def _wavering(rounds: Sequence[Mapping[str, Answer]]) -> set[str]:
    """Questions made of another one's answer, where greedy decoding wavers by itself: they ask not the same."""
    extended = [question.name for question in QUESTIONS if question.source == "extend"]
    return {
        name
        for name in extended
        if len({answers[name].outputs.token.tobytes() for answers in rounds if name in answers}) > 1
    }


def outputs_of(outputs: Outputs, top_token: NDArray[np.int64]) -> NDArray[np.float64]:
    """Log-probabilities [n, 21] of the own token and of the given top tokens [n, 20], NaN where they are not known."""
    n = min(len(outputs.token), len(top_token))
    same = outputs.top_token[:n, None, :] == top_token[:n, :, None]
    known = same.any(axis=2) & (top_token[:n] >= 0)
    at = same.argmax(axis=2)
    top = np.where(known, np.take_along_axis(outputs.top_logprob[:n], at, axis=1), np.nan)
    return np.concatenate([outputs.logprob[:n, None], top], axis=1)


def states_of(answer: Answer) -> NDArray[np.float64]:
    """States [2, L + 1, 33] at the last prompt token and the last generated one, NaN where not measured."""
    found = np.full((2, answer.origin.layer_count + 1, STATE_SIZE), np.nan)
    if answer.states is not None:
        for row, position in enumerate((answer.outputs.prompt_tokens - 1, answer.outputs.position[-1])):
            at = np.flatnonzero(answer.states.position == position)
            if at.size:
                found[row] = answer.states.values[at[0]]
    return found


def rounding(dtype: str) -> float:
    """The relative deviation that rounding alone may cause in a stream of that element type."""
    return min(_ROUNDINGS * _EPSILON.get(dtype, _LARGEST_ROUNDING), _LARGEST_ROUNDING)


def rms(values: NDArray[np.float64], axis: tuple[int, ...]) -> NDArray[np.float64]:
    """Root mean square over axes of what is not NaN; 0 where nothing is."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0) ** 2
    mean: NDArray[np.float64] = total.sum(axis) / np.maximum(known.sum(axis), 1)
    return np.sqrt(mean)


def _question(prompt: str, answers: Sequence[Answer]) -> tuple[Question, NDArray[np.float64]]:
    """What is expected of a prompt, and of each answer the largest ratio of its distance to the floor."""
    first = answers[0].outputs
    shared = _shared_positions(prompt, answers)
    outputs = np.stack([outputs_of(answer.outputs, first.top_token[:shared]) for answer in answers])
    states = np.stack([states_of(answer) for answer in answers])
    if shared < len(first.token):
        states[:, 1] = np.nan
    # Distance to the mean of the others, which does not contain the answer itself.
    apart = len(answers) / (len(answers) - 1)
    output_mean, state_mean = _mean(outputs), _mean(states)
    output_distance = apart * rms(outputs - output_mean, (1, 2))
    state_distance = apart * rms(states - state_mean, (3,)) * np.sqrt(STATE_SIZE)
    smallest = rounding(answers[0].origin.dtype)
    output_floor = max(float(np.quantile(output_distance, _QUANTILE)), smallest * _LOGIT_SCALE)
    state_floor = np.maximum(np.quantile(state_distance, _QUANTILE, axis=0), smallest * np.sqrt(STATE_SIZE))
    ratios = np.maximum(output_distance / output_floor, (state_distance / state_floor).max(axis=(1, 2)))
    question = Question(
        first.prompt_tokens,
        first.position[:shared],
        first.token[:shared],
        first.top_token[:shared],
        output_mean,
        output_floor,
        state_mean,
        state_floor,
    )
    return question, ratios


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


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the first axis of what is not NaN; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)

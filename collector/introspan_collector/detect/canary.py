"""A round of canary answers and a baseline in; how far it deviates, from which layer on, and what that means, out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.canary_answer import STATE_SIZE, Answer
from introspan_collector.detect.canary_baseline import Baseline, Question, outputs_of, rms, states_of
from introspan_collector.suite import QUESTIONS

PAGE_RATIO = 8.0
"""A distance of so many floors is no chance: two such rounds in a row page."""

EQUIVALENT_KL_NATS = 1e-3
EQUIVALENT_TOP1 = 0.995

EMBEDDING = "embedding"
HEAD = "final norm or output head"
TEXT = "tokenizer or chat template"

_EXTENDED = frozenset(question.name for question in QUESTIONS if question.source == "extend")


@dataclass(frozen=True, slots=True)
class Comparison:
    """How one round compares. ratios are distances in floors; ratio is the largest of them.

    consistency_ratio: the same token computed in two ways, from the cache or not, decoded or prefilled;
    state_ratio: the largest of each layer's input and of the final norm's, [L + 1], 0 where not measured; place
    names where the deviation begins: "layer 7", EMBEDDING, HEAD, TEXT, or "" where there is none or it cannot be
    told; kl_nats: mean divergence from the baseline's next-token distribution; top1: share of positions with the
    same likeliest token; flipped: generated tokens that differ.
    """

    ratio: float
    output_ratio: float
    state_ratio: tuple[float, ...]
    consistency_ratio: float
    layer: int | None
    place: str
    kl_nats: float
    top1: float
    flipped: int
    nonfinite: int
    has_states: bool

    @property
    def deviates(self) -> bool:
        """Whether the round is beyond chance."""
        return self.ratio > PAGE_RATIO or self.nonfinite > 0

    @property
    def equivalent(self) -> bool:
        """Whether what deviates makes no difference to who reads the answers."""
        close = self.kl_nats <= EQUIVALENT_KL_NATS and self.top1 >= EQUIVALENT_TOP1
        return close and not self.nonfinite and self.place != TEXT


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    output_ratio: float
    state_ratio: NDArray[np.float64]
    kl_nats: NDArray[np.float64]
    same_top: NDArray[np.bool_]
    flipped: int
    is_other_text: bool


def compare(baseline: Baseline, answers: Mapping[str, Answer]) -> Comparison:
    """Compares the prompts that both have. Raises ValueError where they have none in common."""
    shared = sorted(
        name for name in baseline.questions if name in answers and not _strays(baseline, answers, name)
    )
    if not shared:
        raise ValueError(
            f"prompts must overlap with the baseline's {sorted(baseline.questions)}, got {sorted(answers)}"
        )
    found = [_compare(baseline.questions[prompt], answers[prompt]) for prompt in shared]
    state_ratio = np.max([one.state_ratio for one in found], axis=0)
    output_ratio = max(one.output_ratio for one in found)
    is_other_text = any(one.is_other_text for one in found)
    has_states = any(answers[prompt].states is not None for prompt in shared)
    nonfinite = sum(states.nonfinite for prompt in shared if (states := answers[prompt].states) is not None)
    consistency_ratio = _consistency(baseline, answers)
    layer, place = _place(state_ratio, output_ratio, is_other_text=is_other_text, has_states=has_states)
    kl_nats = np.concatenate([one.kl_nats for one in found])
    same_top = np.concatenate([one.same_top for one in found])
    return Comparison(
        ratio=float("inf")
        if is_other_text
        else max(output_ratio, float(state_ratio.max()), consistency_ratio),
        output_ratio=output_ratio,
        state_ratio=tuple(state_ratio.tolist()),
        consistency_ratio=consistency_ratio,
        layer=layer,
        place=place,
        kl_nats=float(kl_nats.mean()) if kl_nats.size else float("inf"),
        top1=float(same_top.mean()) if same_top.size else 0.0,
        flipped=sum(one.flipped for one in found),
        nonfinite=nonfinite,
        has_states=has_states,
    )


def _strays(baseline: Baseline, answers: Mapping[str, Answer], name: str) -> bool:
    """Whether a question was made of another's answer that itself differs, and so is not the same question."""
    expected, got = baseline.questions[name].token, answers[name].outputs.token
    return name in _EXTENDED and not np.array_equal(expected, got[: len(expected)])


def _consistency(baseline: Baseline, answers: Mapping[str, Answer]) -> float:
    """The largest distance, in floors, between states of one token that was computed in two ways."""
    largest = 0.0
    for question in QUESTIONS:
        first, second = answers.get(question.of), answers.get(question.name)
        expected = baseline.questions.get(question.of)
        if first is None or second is None or expected is None:
            continue
        # What was repeated compares at the last prompt token, what was extended at the last generated one.
        row = 1 if question.source == "extend" else 0
        apart = rms(states_of(first)[row] - states_of(second)[0], (1,)) * np.sqrt(STATE_SIZE)
        # Both sides deviate by chance.
        largest = max(largest, float((apart / (np.sqrt(2) * expected.state_floor[row])).max()))
    return largest


def _place(
    state_ratio: NDArray[np.float64], output_ratio: float, *, is_other_text: bool, has_states: bool
) -> tuple[int | None, str]:
    if is_other_text:
        return None, TEXT
    deviating = np.flatnonzero(state_ratio > PAGE_RATIO)
    if deviating.size:
        # What enters a layer is what the one before made of it.
        layer = int(deviating[0]) - 1
        return (layer, f"layer {layer}") if layer >= 0 else (None, EMBEDDING)
    return None, HEAD if has_states and output_ratio > PAGE_RATIO else ""


def _compare(question: Question, answer: Answer) -> _Found:
    outputs = answer.outputs
    layers = question.state_floor.shape[1]
    own = int(np.count_nonzero(question.position < question.prompt_tokens - 1))
    is_other_text = outputs.prompt_tokens != question.prompt_tokens or not np.array_equal(
        outputs.token[:own], question.token[:own]
    )
    if is_other_text or answer.origin.layer_count + 1 != layers:
        nothing = np.zeros(0)
        return _Found(float("inf"), np.zeros(layers), nothing, nothing.astype(bool), 0, is_other_text)
    n = min(len(outputs.token), len(question.token))
    differs = np.flatnonzero(outputs.token[:n] != question.token[:n])
    # After a token that differs, the rest is about another text.
    comparable = n if not differs.size else int(differs[0]) + 1
    apart = outputs_of(outputs, question.top_token)[:comparable] - question.output_mean[:comparable]
    if differs.size:
        apart[-1, 0] = np.nan
    states = rms(states_of(answer) - question.state_mean, (2,)) * np.sqrt(STATE_SIZE)
    if differs.size:
        states[1] = 0.0
    return _Found(
        float(rms(apart, (0, 1))) / question.output_floor,
        (states / question.state_floor).max(axis=0),
        _divergence(question, answer, comparable),
        outputs.top_token[:comparable, 0] == question.top_token[:comparable, 0],
        n - comparable + 1 if differs.size else 0,
        is_other_text=False,
    )


def _divergence(question: Question, answer: Answer, comparable: int) -> NDArray[np.float64]:
    """KL(baseline ‖ answer) [positions] over the baseline's top tokens and all others as one, nats.

    A top token that the answer's API left out has at most the probability of the last that it gave.
    """
    expected = question.output_mean[:comparable, 1:]
    got = outputs_of(answer.outputs, question.top_token)[:comparable, 1:]
    last = np.nanmin(
        np.where(np.isfinite(answer.outputs.top_logprob), answer.outputs.top_logprob, np.nan), axis=1
    )
    got = np.where(np.isfinite(got), got, last[:comparable, None])
    known = np.isfinite(expected) & np.isfinite(got)
    p, q = np.where(known, np.exp(expected), 0.0), np.where(known, np.exp(got), 0.0)
    rest_p = np.clip(1.0 - p.sum(axis=1), 1e-12, 1.0)
    rest_q = np.clip(1.0 - q.sum(axis=1), 1e-12, 1.0)
    inside = np.where(known, p * (expected - got), 0.0).sum(axis=1)
    kl = np.maximum(inside + rest_p * np.log(rest_p / rest_q), 0.0)
    measured: NDArray[np.float64] = kl[known.any(axis=1)]
    return measured

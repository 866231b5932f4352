"""A round of canary answers and a baseline in; how far it deviates, from which layer on, and what that means, out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.canary.answer import Answer
from introspan_collector.detect.canary.baseline import LARGEST_RATIO, Baseline
from introspan_collector.detect.canary.expected import Question
from introspan_collector.detect.canary.measured import outputs_of, states_of
from introspan_collector.detect.canary.place import first_layer, length, pooled, rms, steps_of
from introspan_collector.detect.canary.spread import Squares, of_round, pooled_squares
from introspan_collector.detect.canary.twins import TWINS, twin_distance
from introspan_collector.suite import QUESTIONS

PAGE_RATIO = LARGEST_RATIO
"""A distance of so many floors is no chance: two such rounds in a row page."""

EQUIVALENT_KL_NATS = 1e-3
EQUIVALENT_TOP1 = 0.995

EMBEDDING = "embedding"
HEAD = "final norm or output head"
TEXT = "tokenizer or chat template"
ARCHITECTURE = "number of layers"

_EXTENDED = frozenset(question.name for question in QUESTIONS if question.source == "extend")


@dataclass(frozen=True, slots=True)
class Comparison:
    """How one round compares. ratios are distances in floors.

    ratio: of all outputs together, of all states together, or of the same token computed in two ways, whichever is
    most: what a round is ranked among healthy ones by; outputs_ratio: the first of these. largest_ratio: of any one
    question's output or one layer's state as well, which chance makes larger: what pages. consistency_ratio: the same
    token computed in two ways, from the cache or not, decoded or prefilled; state_ratio: the largest of each layer's
    input and of the final norm's, [L + 1], 0 where not measured; step_ratio: what each layer adds, of all rows
    together, [L + 1]; place names where the deviation begins: "layer 7", EMBEDDING, HEAD, TEXT, ARCHITECTURE, or ""
    where there is none or it cannot be told; kl_nats: mean divergence from the baseline's next-token distribution;
    top1: share of positions whose likeliest token was the likeliest in a healthy round as well; flipped: generated
    tokens that differ.
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
    step_ratio: tuple[float, ...] = ()
    largest_ratio: float = 0.0
    outputs_ratio: float = 0.0

    @property
    def distance(self) -> float:
        """How far off a round is, in floors of what chance explains: the largest of all that is looked at."""
        return max(self.ratio, self.largest_ratio)

    @property
    def deviates(self) -> bool:
        """Whether the round is beyond chance."""
        return self.distance > PAGE_RATIO or self.nonfinite > 0

    @property
    def equivalent(self) -> bool:
        """Whether what deviates makes no difference to who reads the answers."""
        close = self.kl_nats <= EQUIVALENT_KL_NATS and self.top1 >= EQUIVALENT_TOP1
        return close and not self.nonfinite and self.place not in (TEXT, ARCHITECTURE)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """How one question compares. state_ratio [L + 1], step_ratio [2, L + 1]; kl_nats and same_top of each position.

    outputs and states: squares of all its numbers.
    """

    output_ratio: float
    state_ratio: NDArray[np.float64]
    step_ratio: NDArray[np.float64]
    kl_nats: NDArray[np.float64]
    same_top: NDArray[np.bool_]
    flipped: int
    outputs: Squares
    states: Squares
    other: str = ""
    has_states: bool = False


def compare(baseline: Baseline, answers: Mapping[str, Answer]) -> Comparison:
    """Compares the questions that both have. Raises ValueError where they have none in common."""
    shared = sorted(
        name for name in baseline.questions if name in answers and not _strays(baseline, answers, name)
    )
    if not shared:
        raise ValueError(
            f"questions must overlap with the baseline's {sorted(baseline.questions)}, got {sorted(answers)}"
        )
    found = [_compare(baseline.questions[name], answers[name]) for name in shared]
    state_ratio = np.max([one.state_ratio for one in found], axis=0)
    step_ratio = pooled(np.concatenate([one.step_ratio for one in found]))
    output_ratio = max(one.output_ratio for one in found)
    # States may have come, and none of a row that is compared: then no layer has been found still.
    has_states = baseline.layer_count > 0 and any(one.has_states for one in found)
    consistency_ratio = _consistency(baseline, answers)
    other = next((one.other for one in found if one.other), "")
    outputs_ratio, states_ratio = _spread_ratios(baseline, found)
    ratio = max(outputs_ratio, states_ratio, consistency_ratio)
    largest_ratio = max(ratio, output_ratio, float(state_ratio.max(initial=0.0)))
    layer, place = None, other
    if not place and largest_ratio > PAGE_RATIO:
        step = first_layer(step_ratio, baseline.step_limit)
        layer, place = _place(step, state_ratio, is_in_output=has_states and output_ratio > PAGE_RATIO)
    kl_nats = np.concatenate([one.kl_nats for one in found])
    same_top = np.concatenate([one.same_top for one in found])
    return Comparison(
        ratio=ratio,
        output_ratio=output_ratio,
        state_ratio=tuple(state_ratio.tolist()),
        consistency_ratio=consistency_ratio,
        layer=layer,
        place=place,
        kl_nats=float(kl_nats.mean()) if kl_nats.size else float("inf"),
        top1=float(same_top.mean()) if same_top.size else 0.0,
        flipped=sum(one.flipped for one in found),
        nonfinite=sum(states.nonfinite for name in shared if (states := answers[name].states) is not None),
        has_states=has_states,
        step_ratio=tuple((step_ratio / baseline.step_limit).tolist()),
        largest_ratio=largest_ratio,
        outputs_ratio=outputs_ratio,
    )


def _spread_ratios(baseline: Baseline, found: Sequence[_Found]) -> tuple[float, float]:
    """How far all outputs, and all states, are off together, in floors; infinite where they are of something else."""
    if any(one.other for one in found):
        return float("inf"), float("inf")
    outputs = pooled_squares([one.outputs for one in found])[0] / baseline.spread_floors[0]
    states = pooled_squares([one.states for one in found])[0] / baseline.spread_floors[1]
    return float(outputs), float(states)


def _strays(baseline: Baseline, answers: Mapping[str, Answer], name: str) -> bool:
    """Whether a question was made of another's answer that itself differs, and so is not the same question."""
    expected, got = baseline.questions[name].token, answers[name].outputs.token
    return name in _EXTENDED and not np.array_equal(expected, got[: len(expected)])


def _consistency(baseline: Baseline, answers: Mapping[str, Answer]) -> float:
    """The largest distance, in floors, between states of one token that was computed in two ways."""
    largest = 0.0
    for name, twin in TWINS.items():
        question = baseline.questions.get(name)
        if question is None or not question.twin_floor.any() or not {name, twin.of} <= answers.keys():
            continue
        apart = twin_distance(answers, name, len(question.twin_floor))
        largest = max(largest, float((apart / question.twin_floor).max()))
    return largest


def _place(
    step: int | None, state_ratio: NDArray[np.float64], *, is_in_output: bool
) -> tuple[int | None, str]:
    deviating = np.flatnonzero(state_ratio > PAGE_RATIO)
    if step is None and deviating.size:
        step = int(deviating[0])
    if step is not None:
        # What enters a layer is what the one before made of it.
        return (step - 1, f"layer {step - 1}") if step else (None, EMBEDDING)
    return None, HEAD if is_in_output else ""


def _compare(question: Question, answer: Answer) -> _Found:
    outputs = answer.outputs
    depth = question.state_floor.shape[1]
    own = int(np.count_nonzero(question.position < question.prompt_tokens - 1))
    is_other_text = outputs.prompt_tokens != question.prompt_tokens or not np.array_equal(
        outputs.token[:own], question.token[:own]
    )
    is_other_depth = depth > 0 and answer.states is not None and answer.states.values.shape[1] != depth
    if is_other_text or is_other_depth:
        nothing = np.zeros(0)
        none = Squares(np.zeros(1), np.zeros(1, np.int64))
        return _Found(
            *(float("inf"), np.zeros(depth), np.zeros((2, depth)), nothing, nothing.astype(bool), 0),
            *(none, none),
            TEXT if is_other_text else ARCHITECTURE,
        )
    n = min(len(outputs.token), len(question.token))
    differs = np.flatnonzero(outputs.token[:n] != question.token[:n])
    # After a token that differs, the rest is about another text.
    comparable = n if not differs.size else int(differs[0]) + 1
    got, mean = outputs_of(outputs, question.top_token)[:comparable], question.output_mean[:comparable]
    states = states_of(answer, depth)
    state_ratio, step_ratio = _inside(question, answer)
    if differs.size:
        got[-1, 0], states[1] = np.nan, np.nan
        state_ratio[1], step_ratio[1] = 0.0, 0.0
    return _Found(
        float(rms(got - mean, (0, 1))) / question.output_floor,
        state_ratio.max(axis=0),
        step_ratio,
        _divergence(question, answer, comparable),
        _is_as_likely(question.likeliest[:comparable], outputs.top_token[:comparable, 0]),
        n - comparable + 1 if differs.size else 0,
        of_round(got, mean, question.output_deviation[:comparable]),
        of_round(states, question.state_mean, question.state_deviation),
        has_states=bool(np.isfinite(states_of(answer, depth)).any()),
    )


def _inside(question: Question, answer: Answer) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances [2, L + 1] of states and of steps, in floors; infinite where a state is no longer a number."""
    states = states_of(answer, question.state_floor.shape[1])
    steps = steps_of(states, question.state_mean)
    is_row = np.atleast_2d(np.isfinite(states).any(axis=(1, 2))).T
    if answer.states is not None and answer.states.nonfinite:
        is_row = np.ones_like(is_row)
    found = []
    for values, mean, floor in (
        (states, question.state_mean, question.state_floor),
        (steps, question.step_mean, question.step_floor),
    ):
        is_lost = is_row & np.isfinite(mean).all(axis=2) & ~np.isfinite(values).all(axis=2)
        found.append(np.where(is_lost, np.inf, length(values - mean) / floor))
    return found[0], found[1]


def _is_as_likely(likeliest: NDArray[np.int32], top_token: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether the likeliest token was that of a healthy round, bool [positions where it is known of those].

    Where two tokens are as likely up to rounding, healthy rounds differ from one another: what they waver between is no
    difference.
    """
    known = likeliest >= 0
    same: NDArray[np.bool_] = (known & (likeliest == top_token[:, None])).any(axis=1)
    return same[known.any(axis=1)]


def _divergence(question: Question, answer: Answer, comparable: int) -> NDArray[np.float64]:
    """KL(baseline ‖ answer) [positions] over the baseline's top tokens and all others as one, nats.

    A top token that the answer's API left out has at most the probability of the last that it gave.
    """
    expected = question.output_mean[:comparable, 1:]
    got = outputs_of(answer.outputs, question.top_token)[:comparable, 1:]
    given = answer.outputs.top_logprob.astype(np.float64)
    last = np.where(np.isfinite(given), given, np.inf).min(axis=1)
    got = np.where(np.isfinite(got), got, last[:comparable, None])
    known = np.isfinite(expected) & np.isfinite(got)
    p, q = np.where(known, np.exp(expected), 0.0), np.where(known, np.exp(got), 0.0)
    rest_p = np.clip(1.0 - p.sum(axis=1), 1e-12, 1.0)
    rest_q = np.clip(1.0 - q.sum(axis=1), 1e-12, 1.0)
    inside = np.where(known, p * (expected - got), 0.0).sum(axis=1)
    kl = np.maximum(inside + rest_p * np.log(rest_p / rest_q), 0.0)
    measured: NDArray[np.float64] = kl[known.any(axis=1)]
    return measured

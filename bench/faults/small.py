"""A model whose weights changed a little in, how well canary and output-only baselines tell it from a healthy one out."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from bench.faults import tiny
from bench.faults.auc import auc, interval
from bench.faults.protocol import PROTOCOL
from bench.faults.result import Cell, Claim, Result, Table
from bench.faults.tracking import PROMPTS, distance
from bench.faults.trial import Trial, judge
from bench.faults.weights import Change
from bench.faults.workplace import Run, Workplace
from introspan_collector.detect.canary import Comparison

_SEED: int = PROTOCOL["seed"]
_SETTINGS = PROTOCOL["settings"]
_FAMILIES = (*_SETTINGS["chosen_on"], *_SETTINGS["reported_on"])
_LAYERS = 30
Score = Callable[[Sequence[Trial]], NDArray[np.float64]]


def run(workplace: Workplace) -> Result:
    """Every change in each dtype, beside rounds of the healthy model."""
    trials: list[Trial] = []
    for dtype in PROTOCOL["dtypes"]:
        trials += workplace.trials(f"small-{dtype}", [*_healthy(workplace, dtype), *_runs(workplace, dtype)])
    return report(trials)


def changes(scale: float) -> list[Change]:
    """The families. Where the scale is below 1 fewer of each, where it is above more draws and more layers."""
    turns = range(max(1, round(scale)))
    counts = PROTOCOL["single_layers_of_small_changes"]
    by_layer = [min(_LAYERS, max(2, round(scale * counts[kind]))) for kind in ("int8", "neutral")]
    int8, neutral = (np.linspace(0, _LAYERS - 1, count).round().astype(int).tolist() for count in by_layer)
    made = [
        *(tiny.noise(exponent, _SEED + turn) for turn in turns for exponent in tiny.NOISE_EXPONENTS),
        *(tiny.pruned_random(share, _SEED + turn) for turn in turns for share in tiny.PRUNED_SHARES),
        *(tiny.pruned_smallest(share) for share in tiny.PRUNED_SHARES),
    ]
    made = made[:: max(1, round(1 / scale))]
    made += [tiny.int8(layer) for layer in int8]
    made += [tiny.heads_permuted(layer, 9, 3, _SEED) for layer in neutral]
    return made + [tiny.neurons_permuted(layer, _SEED) for layer in neutral]


def _healthy(workplace: Workplace, dtype: str) -> list[tuple[str, Run]]:
    def reference() -> Trial:
        subject = workplace.subject(dtype)
        tracked = (subject.tracker.reference.tolist(),)
        return Trial("reference", "", dtype, None, False, (), tracked, None)

    def one(i: int) -> Trial:
        subject = workplace.subject(dtype)
        return judge(subject, ("healthy", str(i), None), [subject.held_out[i]], is_other=False)

    rounds: list[tuple[str, Run]] = [
        (f"healthy {i}", partial(one, i)) for i in range(PROTOCOL["healthy_rounds"])
    ]
    return [("reference", reference), *rounds]


def _runs(workplace: Workplace, dtype: str) -> list[tuple[str, Run]]:
    def one(change: Change, number: int) -> Trial:
        subject = workplace.subject(dtype)
        drawn = subject.changed(change, number, PROTOCOL["rounds_of_a_trial"])
        return judge(
            subject, (change.family, change.name, change.layer), drawn.rounds, is_other=drawn.is_other
        )

    wanted = changes(workplace.scale)
    return [
        (f"{change.family}, {change.name}, {i}", partial(one, change, i)) for i, change in enumerate(wanted)
    ]


def report(trials: Sequence[Trial]) -> Result:
    """The part's result, of as many trials as there are."""
    ...

"""A model whose weights changed a little in, how well canary and output alone tell it from a healthy one, out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from bench.faults import tiny
from bench.faults.protocol import PROTOCOL
from bench.faults.result import Cell, Claim, Result, Table
from bench.faults.scoring import OUTPUTS, Separation, chosen, separation, settings
from bench.faults.store import Sample
from bench.faults.tracking import Vector
from bench.faults.trial import CONTROL, Trial
from bench.faults.weights import Change
from bench.faults.workplace import Run, Workplace

_SEED: int = PROTOCOL["seed"]
_SETTINGS = PROTOCOL["settings"]
_FAMILIES: tuple[str, ...] = (*_SETTINGS["chosen_on"], *_SETTINGS["reported_on"])
_CONTROLS = (CONTROL, "neutral: heads permuted", "neutral: neurons permuted")
_LAYERS = 30


def run(workplace: Workplace) -> Result:
    """Every change in each dtype, beside rounds of the healthy model."""
    trials: list[Trial] = []
    references = {}
    for dtype in PROTOCOL["dtypes"]:
        # Healthy ones first: without them nothing can be said of the others.
        trials += workplace.healthy(dtype)
        trials += workplace.controls(dtype)
        trials += workplace.trials("small", dtype, _runs(workplace, dtype))
        if (judge := workplace.judge(dtype)) is not None:
            references[dtype] = judge.reference
    return report(trials, references)


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


def _runs(workplace: Workplace, dtype: str) -> list[tuple[str, Run]]:
    def one(change: Change, number: int) -> Sample:
        subject = workplace.subject(dtype)
        drawn = subject.changed(change, number, PROTOCOL["rounds_of_a_trial"])
        return Sample(change.family, change.name, dtype, change.layer, drawn.is_other, drawn.rounds)

    wanted = changes(workplace.scale)
    return [
        (f"{change.family}, {change.name}, {i}", partial(one, change, i)) for i, change in enumerate(wanted)
    ]


def report(trials: Sequence[Trial], references: Mapping[str, Vector]) -> Result:
    """The part's result, of as many trials as there are."""
    canary, lt4, lt = (chosen(trials, references, settings(method)) for method in ("canary", "LT4", "LT"))
    claims, rows = [], []
    for dtype in PROTOCOL["dtypes"]:
        control = separation(trials, references, CONTROL, dtype)
        for family in _FAMILIES:
            found = separation(trials, references, family, dtype)
            rows.append(_row(trials, family, dtype, found, (canary, OUTPUTS, lt4, lt)))
            wanted = [change for change in changes(1.0) if change.family == family]
            run = [trial for trial in trials if trial.family == family and trial.dtype == dtype]
            claims += [
                replace(claim, is_complete=len(run) >= len(wanted))
                for claim in _claims(f"{dtype}, {family}", found, control, (canary, lt4), dtype)
            ]
        for family in _CONTROLS:
            found = separation(trials, references, family, dtype)
            rows.append(_row(trials, family, dtype, found, (canary, OUTPUTS, lt4, lt)))
    neutral = [trial for trial in trials if trial.family.startswith("neutral")]
    claims.append(
        Claim(
            f"pages of neutral changes (of {len(neutral)})",
            float(sum(trial.pages for trial in neutral)) if neutral else None,
            PROTOCOL["targets"]["neutral_pages"],
            at_most=True,
            is_complete=len(neutral)
            >= 2 * sum(change.family.startswith("neutral") for change in changes(1.0)),
        )
    )
    tables = [
        Table("Told from a healthy model: area under the curve", _COLUMNS, rows),
        Table("Neutral changes", _NEUTRAL_COLUMNS, [_neutral_row(trial) for trial in neutral]),
        Table("Every setting that was tried", _TRIED_COLUMNS, _tried(trials, references)),
    ]
    total = len(PROTOCOL["dtypes"]) * (len(changes(1.0)) + PROTOCOL["healthy_rounds"])
    notes = (*_NOTES, f"Settings chosen on {' and '.join(_CHOSEN_ON)}: {canary}; {lt4}; {lt}.")
    return Result(f"{len(trials)} of {total} trials of the protocol are in it.", notes, claims, tables)


_LARGEST_CONTROL = 0.75
"""A control that is told apart by more voids the areas beside it."""


def _claims(
    label: str, found: Separation | None, control: Separation | None, names: tuple[str, str], dtype: str
) -> list[Claim]:
    """That the canary's AUC is at least LT4's, measured here, and the one that is wanted in bfloat16."""
    canary, lt4 = names
    if found is None:
        return [Claim(f"{label}: AUC of the canary less LT4's", None, 0.0)]
    if control is None or max(control.auc(canary), control.auc(lt4)) > _LARGEST_CONTROL:
        told = (
            "is missing"
            if control is None
            else f"has {control.auc(canary):.2f}, LT4's {control.auc(lt4):.2f}"
        )
        return [Claim(f"{label}: AUC of the canary less LT4's; void, as the control {told}", None, 0.0)]
    beside = found.auc(canary) - found.auc(lt4)
    low, high = found.interval(canary, lt4)
    claims = [Claim(f"{label}: AUC of the canary less LT4's", beside, 0.0, low=low, high=high)]
    if dtype == "bfloat16":
        low, high = found.interval(canary)
        wanted = PROTOCOL["targets"]["auc_bfloat16"]
        claims.append(Claim(f"{label}: AUC of the canary", found.auc(canary), wanted, low=low, high=high))
    return claims


_CHOSEN_ON: list[str] = _SETTINGS["chosen_on"]
_COLUMNS = (
    "dtype", "family", "role", "changed", "identical", "page", "canary", "outputs of the canary", "LT4", "LT",
    "canary − outputs, 95 %", "canary − LT4, 95 %",
)  # fmt: skip


def _row(
    trials: Sequence[Trial], family: str, dtype: str, found: Separation | None, names: tuple[str, ...]
) -> list[Cell]:
    some = [trial for trial in trials if trial.family == family and trial.dtype == dtype]
    other = [trial for trial in some if trial.is_other]
    role = (
        "settings chosen on it" if family in _CHOSEN_ON else "control" if family in _CONTROLS else "left out"
    )
    head: list[Cell] = [
        dtype, family, role, len(other),
        len(some) - len(other), sum(trial.pages for trial in other),
    ]  # fmt: skip
    if found is None:
        return [*head, *[None] * (len(_COLUMNS) - len(head))]
    canary, outputs, lt4, _ = names
    beside = [
        f"{low:+.3f} to {high:+.3f}"
        for low, high in (found.interval(canary, other) for other in (outputs, lt4))
    ]
    return [*head, *(found.auc(name) for name in names), *beside]


_NEUTRAL_COLUMNS = ("dtype", "change", "where", "deviates", "equivalent", "page", "mean KL, nats", "top-1")


def _neutral_row(trial: Trial) -> list[Cell]:
    first = trial.rounds[0]
    return [
        trial.dtype, trial.family, trial.name, first.deviates, first.equivalent, trial.pages, first.kl_nats, first.top1,
    ]  # fmt: skip


_TRIED_COLUMNS = ("score", *(f"{dtype}, {family}" for dtype in PROTOCOL["dtypes"] for family in _FAMILIES))


def _tried(trials: Sequence[Trial], references: Mapping[str, Vector]) -> list[list[Cell]]:
    found = [
        separation(trials, references, family, dtype) for dtype in PROTOCOL["dtypes"] for family in _FAMILIES
    ]
    names = [name for method in ("canary", "LT4", "LT") for name in settings(method)]
    return [[name, *(None if one is None else one.auc(name) for one in found)] for name in (*names, OUTPUTS)]


_NOTES = (
    (
        "Controls have nothing, or nothing but rounding, changed: the nearer theirs is to 0.5, the more an area of 1 "
        "elsewhere says of weights. Where it is large too, batches or rounding are told from others, not models."
    ),
    (
        "A trial is two rounds; a healthy one any two of 16 rounds that the baseline has not seen. Canary and "
        "log-probability tracking are given the same rounds in the same batches, the same 64 of the healthy "
        "model, and three settings each. Intervals are bootstrapped over changed models, not over healthy "
        "rounds."
    ),
    (
        "LT is 2512.03816's with its one prompt, LT4 the same with four. Variants whose weights are the "
        "healthy model's bit for bit, in that dtype, are set apart as identical."
    ),
    (
        "The last four columns are AUC and what the canary adds to it; an interval around 0 says that it adds "
        "nothing there. page counts variants that the product would page for at its own limit of 8 floors, "
        "which few tiny changes reach: AUC is about ranking, paging is about what matters to answers."
    ),
    (
        "Batch noise is that of this machine: other batches, chunks and neighbours, one thread. In float32 "
        "most batches give the same bits. Fine-tuned and LoRA variants of the families are not in it."
    ),
)

"""A model with one damaged layer in, whether the canary pages and names that layer out."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from bench.faults.auc import share
from bench.faults.protocol import PROTOCOL
from bench.faults.result import Cell, Claim, Result, Table
from bench.faults.scoring import OUTPUTS, separation
from bench.faults.store import Sample
from bench.faults.tracking import Vector
from bench.faults.trial import CONTROL, Trial
from bench.faults.weights import Change, bit_flip, mis_scaled, zeroed_shard
from bench.faults.workplace import Run, Workplace

_KINDS: tuple[Callable[[int, int], Change], ...] = (bit_flip, zeroed_shard, mis_scaled)
_FAMILIES = ("exponent bit", "zeroed shard", "mis-scaled")
_LAYERS = 30


def run(workplace: Workplace) -> Result:
    """30 layers × 3 faults, in each dtype."""
    trials: list[Trial] = []
    references = {}
    for dtype in PROTOCOL["dtypes"]:
        trials += workplace.trials("layers", dtype, _runs(workplace, dtype))
        trials += workplace.healthy(dtype)
        trials += workplace.controls(dtype)
        if (judge := workplace.judge(dtype)) is not None:
            references[dtype] = judge.reference
    return report(trials, references)


def changes(scale: float) -> list[Change]:
    """One fault of each kind for each layer, drawn anew for each full turn of the scale."""
    wanted = []
    for turn in range(max(1, round(scale))):
        layers = np.linspace(0, _LAYERS - 1, max(2, round(_LAYERS * min(scale, 1.0)))).round().astype(int)
        wanted += [kind(int(layer), PROTOCOL["seed"] + turn) for layer in layers for kind in _KINDS]
    return wanted


def _runs(workplace: Workplace, dtype: str) -> list[tuple[str, Run]]:
    def one(change: Change, number: int) -> Sample:
        subject = workplace.subject(dtype)
        averaged = PROTOCOL["rounds_averaged_to_name_a_layer"][dtype]
        drawn = subject.changed(change, number, max(averaged, PROTOCOL["rounds_of_a_trial"]))
        return Sample(change.family, change.name, dtype, change.layer, drawn.is_other, drawn.rounds)

    per_turn = _LAYERS * len(_KINDS)
    return [
        (f"{change.family}, {change.name}, {i // per_turn}", partial(one, change, i))
        for i, change in enumerate(changes(workplace.scale))
    ]


def report(found: Sequence[Trial], references: Mapping[str, Vector]) -> Result:
    """The part's result, of as many trials as there are."""
    claims, rows, missed = [], [], []
    trials = [trial for trial in found if trial.family in _FAMILIES]
    for dtype in PROTOCOL["dtypes"]:
        some = [trial for trial in trials if trial.dtype == dtype]
        claims += _claims(dtype, some)
        rows += [_row(dtype, family, [t for t in some if t.family == family]) for family in _FAMILIES]
        missed += [_miss(t) for t in some if t.is_material and (not t.pages or t.located != t.layer)]
    tables = [
        Table("By kind of fault", _COLUMNS, rows),
        Table("Told from a healthy model: area under the curve", _AUC_COLUMNS, _separated(found, references)),
        Table("Naming the layer with lower floors", _FLOOR_COLUMNS, _floors(trials)),
        Table("Material faults that did not page, or whose layer was named wrongly", _MISS_COLUMNS, missed),
    ]
    total = 2 * len(changes(1.0))
    return Result(f"{len(trials)} of {total} trials of the protocol are in it.", _NOTES, claims, tables)


def _claims(dtype: str, trials: Sequence[Trial]) -> list[Claim]:
    material = [trial for trial in trials if trial.is_material]
    paged = [trial.pages for trial in material]
    alarms = [trial for trial in trials if trial.pages]
    target, is_complete = PROTOCOL["targets"], len(trials) >= len(changes(1.0))
    named = [trial.located == trial.layer for trial in alarms]
    both = [trial.pages and trial.located == trial.layer for trial in material]
    wanted, within = target["exact_layer"][dtype], target["material_within_two_rounds"]
    found = (
        ("material faults that page within two rounds", paged, within),
        ("exact layer named, of alarms", named, wanted),
        ("paged and exact layer named, of material faults", both, wanted),
    )
    return [
        _share(f"{dtype}: {text}", outcome, bound, is_complete=is_complete) for text, outcome, bound in found
    ]


def _share(text: str, outcome: Sequence[bool], bound: float, *, is_complete: bool) -> Claim:
    text = f"{text} ({sum(outcome)} of {len(outcome)})"
    if not outcome:
        return Claim(text, None, bound)
    low, high = share(outcome, PROTOCOL["seed"])
    return Claim(text, sum(outcome) / len(outcome), bound, low=low, high=high, is_complete=is_complete)


_COLUMNS = (
    "dtype", "fault", "instances", "material", "material that page", "by output alone, same limit", "page in all",
    "exact layer of alarms", "without averaging",
)  # fmt: skip


def _row(dtype: str, family: str, trials: Sequence[Trial]) -> list[Cell]:
    material = [t for t in trials if t.is_material]
    alarms = [t for t in trials if t.pages]
    first = sum(t.rounds[-1].layer == t.layer for t in alarms)
    return [
        dtype, family, len(trials), len(material), sum(t.pages for t in material),
        sum(all(r.output_ratio > 8 or r.nonfinite for r in t.rounds[:2]) for t in material), len(alarms),
        f"{sum(t.located == t.layer for t in alarms)} of {len(alarms)}", f"{first} of {len(alarms)}",
    ]  # fmt: skip


_AUC_COLUMNS = ("dtype", "fault", "canary", "outputs of the canary", "LT4", "LT", "canary − LT4, 95 %")
_SCORES = ("canary: ratio", OUTPUTS, "LT4: mean |difference|", "LT: mean |difference|")


def _separated(found: Sequence[Trial], references: Mapping[str, Vector]) -> list[list[Cell]]:
    """The product's ratio and log-probability tracking as published, with no setting chosen and no limit."""
    rows: list[list[Cell]] = []
    for dtype in PROTOCOL["dtypes"]:
        for family in (*_FAMILIES, CONTROL):
            apart = separation(found, references, family, dtype)
            if apart is not None:
                low, high = apart.interval(_SCORES[0], _SCORES[2])
                areas = (apart.auc(score) for score in _SCORES)
                rows.append([dtype, family, *areas, f"{low:+.3f} to {high:+.3f}"])
    return rows


_FLOOR_COLUMNS = ("dtype", "floors", "exact, chosen on mis-scaled", "exact, exponent bits and zeroed shards")


def _floors(trials: Sequence[Trial]) -> list[list[Cell]]:
    """Of all that page, the exact layers named when the first state beyond fewer floors decides."""
    rows: list[list[Cell]] = []
    for dtype in PROTOCOL["dtypes"]:
        alarms = [trial for trial in trials if trial.dtype == dtype and trial.pages]
        for floors in PROTOCOL["naming"]["floors"]:
            cells = []
            for families in (PROTOCOL["naming"]["chosen_on"], PROTOCOL["naming"]["reported_on"]):
                some = [trial for trial in alarms if trial.family in families]
                cells.append(f"{sum(t.first_beyond(floors) == t.layer for t in some)} of {len(some)}")
            rows.append([dtype, floors, *cells])
    return rows


_MISS_COLUMNS = (
    "dtype",
    "fault",
    "where",
    "mean KL, nats",
    "top-1",
    "ratio of either round",
    "pages",
    "named",
)


def _miss(trial: Trial) -> list[Cell]:
    located = trial.located
    return [
        trial.dtype, trial.family, trial.name,
        trial.kl_nats, trial.rounds[0].top1,
        " and ".join(f"{one.ratio:.3g}" for one in trial.rounds), trial.pages,
        "none" if located is None else f"layer {located}",
    ]  # fmt: skip


_NOTES = (
    (
        "Forwards of Hugging Face's modules, packed into the batches of a continuous-batching server; streams "
        "go through the product's projection, answers through its canary comparison. A start of vLLM for each "
        "of these faults would take hours."
    ),
    (
        "exponent bit: one bit of one weight's exponent goes from 0 to 1. zeroed shard: a quarter of one "
        "matrix. mis-scaled: one matrix times 2 or ½. Matrix and place are drawn. material: mean KL of the "
        "canary's next-token distributions ≥ 0.01 nats, or values that are not finite."
    ),
    (
        "Rounds of a changed model are in batch compositions that its baseline of 64 rounds has not seen. In "
        "float32 on one thread most compositions give the same bits, so that the floor is the one that "
        "rounding sets."
    ),
    (
        "In bfloat16 the layer is named from the states of four rounds averaged, against a baseline of such "
        "averages; the product itself names it from one round, which is the last column of the table by kind. "
        "The alarm takes two rounds."
    ),
    (
        "by output alone counts where the canary's outputs exceed the same 8 floors. That limit was not made for "
        "them: without a limit outputs rank faults as the table of areas says, where internals may add nothing. "
        "Areas mean as much as the control, in which nothing is changed, is below them."
    ),
)

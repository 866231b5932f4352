"""A model whose weights changed a little in, how well canary and output alone tell it from a healthy one, out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.faults import neutral, tiny, tuned
from bench.faults.result import Cell, Claim, Result, Table
from bench.faults.rows import SMALL
from bench.faults.scoring import OUTPUTS, Separation, chosen, separation, settings
from bench.faults.second_protocol import SECOND, check_second_seal, second_digest
from bench.faults.store import Sample
from bench.faults.tracking import Vector
from bench.faults.trial import Trial
from bench.faults.weights import Change
from bench.faults.workplace import Run, Workplace
from demo.model import cache_folder, prepare

_SEED: int = SECOND["seed"]
_SMALL: Mapping[str, Any] = SECOND["small"]  # Any: JSON
_SETTINGS = SECOND["settings"]
_CHOSEN_ON: list[str] = _SETTINGS["chosen_on"]
_FAMILIES: tuple[str, ...] = (*_CHOSEN_ON, *_SETTINGS["reported_on"])
_CONTROLS = (tiny.CONTROL, *neutral.FAMILIES)
_LAYERS = 30
_FEWEST = 3  # to draw from fewer again and again says nothing of others


def run(workplace: Workplace) -> Result:
    """Every change in each dtype, beside rounds of the healthy model; every round in a composition of its own."""
    check_second_seal()
    trials: list[Trial] = []
    references = {}
    wanted = changes(prepare(cache_folder(), workplace.progress.console.print), workplace.scale)
    for dtype in SECOND["dtypes"]:
        trials += workplace.trials(_part("healthy"), dtype, _healthy(workplace, dtype))
        trials += workplace.trials(_part("small"), dtype, _runs(workplace, dtype, wanted))
        if (judge := workplace.judge(dtype)) is not None:
            references[dtype] = judge.reference
    return report(trials, references)


def _part(name: str) -> str:
    """Of another protocol nothing is taken over."""
    return f"{name}-{second_digest()[:12]}"


def changes(model: Path, scale: float) -> list[Change]:
    """The families, and controls. Where the scale is below 1 fewer of each, where it is above more draws and layers."""
    turns = range(max(1, round(scale)))
    by_layer = [min(_LAYERS, max(2, round(scale * _SMALL[f"{kind}_layers"]))) for kind in ("int8", "neutral")]
    int8, permuted = (np.linspace(0, _LAYERS - 1, count).round().astype(int).tolist() for count in by_layer)
    made = [
        *(tiny.noise(exponent, _SEED + turn) for turn in turns for exponent in tiny.NOISE_EXPONENTS),
        *(tiny.pruned_random(share, _SEED + turn) for turn in turns for share in tiny.PRUNED_SHARES),
        *(tiny.pruned_smallest(share) for share in tiny.PRUNED_SHARES),
    ]
    made = made[:: max(1, round(1 / scale))]
    for samples in _SMALL["tuned_samples"]:
        made += [tuned.fine_tuned(model, samples), tuned.lora(model, samples)]
    made += [tiny.int8(layer) for layer in int8]
    for layer in permuted:
        made += [tiny.heads_permuted(layer, 9, 3, _SEED), tiny.neurons_permuted(layer, _SEED)]
    return made + [tiny.nothing(number) for number in range(SECOND["control_trials"])]


def _healthy(workplace: Workplace, dtype: str) -> list[tuple[str, Run]]:
    """A round each: any two of them are a healthy trial."""

    def one(draw: int) -> Sample:
        drawn = [workplace.subject(dtype).round(draw)]
        return Sample("healthy", str(draw), dtype, None, is_other=False, rounds=drawn)

    first = SECOND["first_composition"]["healthy"]
    draws = range(first, first + SECOND["healthy_rounds"])
    return [(str(draw), partial(one, draw)) for draw in draws]


def _runs(workplace: Workplace, dtype: str, wanted: Sequence[Change]) -> list[tuple[str, Run]]:
    rounds = SECOND["rounds_of_a_trial"]

    def one(change: Change, number: int) -> Sample:
        first = SECOND["first_composition"]["small"] + number * rounds
        drawn = workplace.subject(dtype).changed_in(change, range(first, first + rounds))
        return Sample(change.family, change.name, dtype, change.layer, drawn.is_other, drawn.rounds)

    return [
        (f"{change.family}, {change.name}, {i}", partial(one, change, i)) for i, change in enumerate(wanted)
    ]


def report(trials: Sequence[Trial], references: Mapping[str, Vector]) -> Result:
    """The part's result, of as many trials as there are."""
    canary, lt4, lt = (chosen(trials, references, settings(method)) for method in ("canary", "LT4", "LT"))
    planned = _planned()
    claims: list[Claim] = []
    rows: list[list[Cell]] = []
    for dtype in SECOND["dtypes"]:
        here = [trial for trial in trials if trial.dtype == dtype]
        found = {family: separation(here, references, family, dtype) for family in (*_FAMILIES, *_CONTROLS)}
        for family, one in found.items():
            some = [trial for trial in here if trial.family == family]
            if some:
                rows.append(_row(some, family, dtype, one, (canary, OUTPUTS, lt4, lt)))
        is_complete = all(
            sum(trial.family == family for trial in here) >= planned[family] for family in _FAMILIES
        )
        claims += _claims(dtype, found, (canary, OUTPUTS, lt4), is_complete=is_complete)
    some = [trial for trial in trials if trial.family in neutral.FAMILIES]
    is_complete = len(some) >= len(SECOND["dtypes"]) * sum(planned[family] for family in neutral.FAMILIES)
    claims += neutral.claims(some, is_complete=is_complete)
    tables = [
        Table("Told from a healthy model: area under the curve", _COLUMNS, rows),
        Table("Neutral changes", neutral.COLUMNS, [neutral.row(trial) for trial in some]),
        Table("Every setting that was tried", *_tried(trials, references)),
    ]
    total = len(SECOND["dtypes"]) * (sum(planned.values()) + SECOND["healthy_rounds"])
    notes = (
        *_NOTES,
        *neutral.called(trials),
        f"Settings chosen on {' and '.join(_CHOSEN_ON)}: {canary}; {lt4}; {lt}.",
    )
    complete = f"{len(trials)} of {total} trials of the protocol are in it."
    return Result(complete, notes, claims, tables, protocol=second_digest())


def _planned() -> dict[str, int]:
    """Trials of each family in one dtype."""
    families = [change.family for change in changes(Path(), 1.0)]
    return {family: families.count(family) for family in (*_FAMILIES, *_CONTROLS)}


def _claims(
    dtype: str,
    found: Mapping[str, Separation | None],
    names: tuple[str, str, str],
    *,
    is_complete: bool,
) -> Iterator[Claim]:
    """That the canary's AUC is at least LT4's in the family where it is least, and the one wanted in bfloat16."""
    canary, outputs, lt4 = names
    text = f"{dtype}: AUC of the canary less LT4's"
    again = _AGAIN if dtype == "bfloat16" else ""
    control = found[tiny.CONTROL]
    known = {family: one for family in _FAMILIES if (one := found[family]) is not None}
    told = 0.0 if control is None else max(control.auc(canary), control.auc(lt4))
    if not known or control is None or told > SECOND["void_above"]:
        void = "" if control is None or not known else f"; void, as the control has {told:.2f}"
        yield Claim(f"{text}{void}", None, 0.0, row=SMALL)
        return
    least = min(known, key=lambda family: known[family].auc(canary) - known[family].auc(lt4))
    yield _apart(
        f"{text}, least of {len(known)} families ({least}){again}",
        known[least],
        canary,
        lt4,
        is_complete=is_complete,
    )
    if dtype == "bfloat16":
        least = min(known, key=lambda family: known[family].auc(canary))
        low, high = known[least].interval(canary)
        yield Claim(
            f"{dtype}: AUC of the canary, least of {len(known)} families ({least}){_AGAIN}", known[least].auc(canary),
            SECOND["targets"]["auc_bfloat16"], low=low, high=high, is_complete=is_complete, row=SMALL,
        )  # fmt: skip
    for family, one in known.items():
        text = f"{dtype}, {family}: AUC of the canary less that of its outputs alone"
        yield replace(_apart(text, one, canary, outputs, is_complete=is_complete), is_gain=True)


def _apart(text: str, found: Separation, ours: str, theirs: str, *, is_complete: bool) -> Claim:
    apart = found.auc(ours) - found.auc(theirs)
    if len(found.changed[ours]) < _FEWEST:
        return Claim(text, apart, 0.0, is_complete=is_complete, row=SMALL)
    low, high = found.interval(ours, theirs)
    return Claim(text, apart, 0.0, low=low, high=high, is_complete=is_complete, row=SMALL)


_COLUMNS = (
    "dtype", "family", "role", "changed", "identical", "page", "canary", "outputs of the canary", "LT4", "LT",
    "canary − outputs, 95 %", "canary − LT4, 95 %",
)  # fmt: skip


def _row(
    some: Sequence[Trial], family: str, dtype: str, found: Separation | None, names: tuple[str, ...]
) -> list[Cell]:
    other = [trial for trial in some if trial.is_other]
    role = (
        "settings chosen on it" if family in _CHOSEN_ON else "control" if family in _CONTROLS else "left out"
    )
    head: list[Cell] = [
        dtype, family, role, len(other),
        len(some) - len(other), sum(trial.pages for trial in some),
    ]  # fmt: skip
    if found is None:
        return [*head, *[None] * (len(_COLUMNS) - len(head))]
    canary, outputs, lt4, _ = names
    beside = [
        f"{low:+.3f} to {high:+.3f}"
        for low, high in (found.interval(canary, other) for other in (outputs, lt4))
    ]
    return [*head, *(found.auc(name) for name in names), *beside]


def _tried(
    trials: Sequence[Trial], references: Mapping[str, Vector]
) -> tuple[Sequence[str], list[list[Cell]]]:
    """Columns of families that have run, a row for each score."""
    wanted = [(dtype, family) for dtype in SECOND["dtypes"] for family in _FAMILIES]
    found = {
        f"{dtype}, {family}": one
        for dtype, family in wanted
        if (one := separation(trials, references, family, dtype)) is not None
    }
    names = [name for method in ("canary", "LT4", "LT") for name in settings(method)]
    return ("score", *found), [
        [name, *(one.auc(name) for one in found.values())] for name in (*names, OUTPUTS)
    ]


_AGAIN = "; its ratio was made anew after a first run, and families kept out were looked at again (decision record 11)"
_NOTES = (
    (
        "Every round is in a batch composition of its own, drawn as those of the baseline are, and controls, in "
        "which nothing is changed, are asked as changes are: the nearer theirs is to 0.5, the more an area of 1 "
        "elsewhere says of weights. Areas beside a control above 0.75 are void."
    ),
    (
        "A trial is two rounds; a healthy one any two of 32 rounds. Canary and log-probability tracking are given "
        "the same rounds in the same batches, the same 64 of the healthy model, and three settings each. "
        "Intervals are bootstrapped over changed models, not over healthy rounds."
    ),
    (
        "LT is 2512.03816's with its one prompt, LT4 the same with four. Variants whose weights are the healthy "
        "model's bit for bit, in that dtype, are set apart as identical. Fine-tuned: 1 to 8 steps of AdamW at "
        "10⁻⁶, a passage of a novel each; LoRA: the same at 10⁻⁴ with rank 8 in queries and values, merged."
    ),
    (
        "page counts variants that the product would page for at its own limit of 8 floors, which few tiny "
        "changes reach: AUC is about ranking, paging is about what matters to answers."
    ),
    (
        "*ratio*, by which the product ranks a round, took the largest distance of any question's output or layer's "
        "state when this part first ran, and had 0.853 for int8 and 0.915 for the smallest pruned in bfloat16. Since "
        "then it takes all numbers together, each in its own deviation: chosen on noise and int8 in bfloat16, with "
        "these very answers, and then looked at on the families left out, which had been seen once before (decision "
        "record 11): there it is no blind figure."
    ),
    (
        "Missed: the smallest pruned in bfloat16. Tried are the settings of the table; pooled outputs without states "
        "had 0.992 there (decision record 11) and were not taken, as settings are chosen on noise and int8."
    ),
    (
        "An earlier run of this part was void: changed models were asked in four batch compositions only, the "
        "healthy one in many, and its control was told apart with 0.89 by the canary and 0.58 by LT4. Seeds, "
        "controls and compositions are new; the 64 rounds of the baseline in bfloat16 are those of then."
    ),
)

"""Weights that change neutrally in, whether the canary calls them equivalent and pages for none, out."""

from collections.abc import Iterator, Sequence

import numpy as np

from bench.faults import tiny
from bench.faults.result import Cell, Claim
from bench.faults.rows import NEUTRAL
from bench.faults.second_protocol import SECOND
from bench.faults.trial import Trial

_AGAIN = "; what is the same likeliest token was made anew after a first run (decision record 17)"
_TRIED = (
    "A position was the same where its likeliest token was that of the baseline's first round; since then where it is "
    "that of any of its rounds (decision record 17)."
)
FAMILIES = ("neutral: heads permuted", "neutral: neurons permuted")


def claims(trials: Sequence[Trial], *, is_complete: bool) -> Iterator[Claim]:
    """That none of them pages, and that each is called equivalent in each dtype."""
    pages = float(sum(trial.pages for trial in trials)) if trials else None
    bound = SECOND["targets"]["neutral_pages"]
    text = f"pages of {len(trials)} neutral changes"
    yield Claim(text, pages, bound, at_most=True, is_complete=is_complete, row=NEUTRAL)
    for dtype in SECOND["dtypes"]:
        told = [_is_equivalent(trial) for trial in trials if trial.dtype == dtype]
        again = _AGAIN if dtype == "bfloat16" else ""
        text = f"{dtype}: neutral changes called equivalent ({sum(told)} of {len(told)}){again}"
        measured = float(np.mean(told)) if told else None
        yield Claim(text, measured, 1.0, is_complete=is_complete, row=NEUTRAL)


def _is_equivalent(trial: Trial) -> bool:
    return all(one.equivalent for one in trial.rounds)


def called(trials: Sequence[Trial]) -> Iterator[str]:
    """What of healthy rounds is called equivalent, and where neutral changes are not."""
    for dtype in SECOND["dtypes"]:
        here = [trial for trial in trials if trial.dtype == dtype]
        if not here:
            continue
        permuted = [trial for trial in here if trial.family in FAMILIES]
        controls = [_is_equivalent(trial) for trial in here if trial.family == tiny.CONTROL]
        if all(map(_is_equivalent, permuted)):
            yield (
                f"Of {len(controls)} controls in {dtype}, in which nothing but the batches is changed, {sum(controls)} "
                "are called equivalent."
            )
            continue
        top1 = [one.top1 for trial in permuted for one in trial.rounds]
        yield (
            f"Missed: {sum(map(_is_equivalent, permuted))} of {len(permuted)} neutral changes are called equivalent in "
            f"{dtype}: of likeliest tokens {min(top1):.1%} to {max(top1):.1%} stay, of the 99.5 % that it takes. Of "
            f"{len(controls)} controls, in which nothing but the batches is changed, {sum(controls)} are called so. "
            f"{sum(trial.pages for trial in permuted)} of the changes page. {_TRIED}"
        )


COLUMNS = ("dtype", "change", "where", "deviates", "equivalent", "page", "mean KL, nats", "top-1")


def row(trial: Trial) -> list[Cell]:
    """What its first round was taken for."""
    first = trial.rounds[0]
    return [
        trial.dtype, trial.family, trial.name, first.deviates, first.equivalent, trial.pages, first.kl_nats, first.top1,
    ]  # fmt: skip

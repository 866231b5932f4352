"""A prefix cache that holds something else than was put there in, whether the canary says so out."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from bench.faults.auc import interval, share
from bench.faults.batch import BLOCK_TOKENS
from bench.faults.forward import Spoil
from bench.faults.layers import by_output_alone
from bench.faults.result import Cell, Claim, Result, Table
from bench.faults.rows import CACHE
from bench.faults.second_protocol import SECOND, check_second_seal, second_digest
from bench.faults.store import Sample
from bench.faults.trial import Trial
from bench.faults.workplace import Run, Workplace
from introspan_collector.detect.canary.comparison import PAGE_RATIO

_CACHE: Mapping[str, Any] = SECOND["cache"]  # Any: JSON
_SEED: int = SECOND["seed"]


def run(workplace: Workplace) -> Result:
    """Every fault in each dtype."""
    check_second_seal()
    trials: list[Trial] = []
    for dtype in SECOND["dtypes"]:
        trials += workplace.trials(f"cache-{second_digest()[:12]}", dtype, _runs(workplace, dtype))
    return report(trials)


def _runs(workplace: Workplace, dtype: str) -> list[tuple[str, Run]]:
    rounds = SECOND["rounds_of_a_trial"]

    def one(fault: str, number: int) -> Sample:
        first = SECOND["first_composition"]["cache"] + number * rounds
        spoil = spoiled(fault, _SEED + number)
        drawn = [workplace.subject(dtype).round(draw, spoil) for draw in range(first, first + rounds)]
        return Sample(fault, str(number), dtype, None, is_other=False, rounds=drawn)

    instances = max(1, round(workplace.scale * _CACHE["instances"]))
    wanted = [fault for _ in range(instances) for fault in _CACHE["faults"]]
    return [(f"{fault}, {i}", partial(one, fault, i)) for i, fault in enumerate(wanted)]


def spoiled(fault: str, seed: int) -> Spoil:
    """What is done to a cached prefix [heads, tokens, size]: to the same block of keys and values in every layer."""

    def spoil(held: Tensor, others: Tensor) -> None:
        place, source = np.random.default_rng(seed).choice(held.shape[1] // BLOCK_TOKENS, 2, replace=False)
        _FAULTS[fault](_block(held, int(place)), _block(held, int(source)), _block(others, 0))

    return spoil


def _block(held: Tensor, number: int) -> Tensor:
    return held[:, number * BLOCK_TOKENS : (number + 1) * BLOCK_TOKENS]


# Keys and values that change places together change nothing: a position is in the key. So it is another text's.
_FAULTS: Mapping[str, Callable[[Tensor, Tensor, Tensor], object]] = {
    "swapped": lambda block, _, others: block.copy_(others),
    "stale": lambda block, own, _: block.copy_(own),
    "mis-scaled": lambda block, *_: block.mul_(_CACHE["scale"]),
}


def report(trials: Sequence[Trial]) -> Result:
    """The part's result, of as many trials as there are."""
    total = len(SECOND["dtypes"]) * len(_CACHE["faults"]) * _CACHE["instances"]
    is_complete = len(trials) >= total
    told = [all(one.deviates for one in trial.rounds) for trial in trials]
    by_outputs = [by_output_alone(trial) for trial in trials]
    text = f"faults of the prefix cache whose rounds both deviate by any cause ({sum(told)} of {len(told)})"
    gain = "the share of them, less the share by the canary's outputs alone at the same limit"
    target = SECOND["targets"]["cache_told"]
    claims = [
        Claim(text, None, target, row=CACHE),
        _by_consistency((), target, is_complete=False),
    ]
    if trials:
        low, high = share(told, _SEED)
        apart = np.array(told, float) - np.array(by_outputs, float)
        least, most = interval(len(apart), lambda drawn: float(apart[drawn].mean()), _SEED)
        claims = [
            Claim(text, float(np.mean(told)), target, low=low, high=high, is_complete=is_complete, row=CACHE),
            _by_consistency(trials, target, is_complete=is_complete),
            Claim(
                gain, float(apart.mean()), 0.0,
                low=least, high=most, is_complete=is_complete, row=CACHE, is_gain=True,
            ),
        ]  # fmt: skip
    rows = [
        _row(dtype, fault, [one for one in trials if (one.dtype, one.family) == (dtype, fault)])
        for dtype in SECOND["dtypes"]
        for fault in _CACHE["faults"]
    ]
    return Result(
        f"{len(trials)} of {total} trials of the protocol are in it.",
        _NOTES,
        claims,
        [Table("By kind of fault", _COLUMNS, [row for row in rows if row[2]])],
        protocol=second_digest(),
    )


def _by_consistency(trials: Sequence[Trial], target: float, *, is_complete: bool) -> Claim:
    """What the difference of one token, read from the cache and not, tells by itself."""
    told = [_is_inconsistent(trial) for trial in trials]
    text = "the same by consistency alone"
    if not told:
        return Claim(text, None, target, row=CACHE)
    low, high = share(told, _SEED)
    of_each = [
        f"{dtype} {sum(found)} of {len(found)}"
        for dtype in SECOND["dtypes"]
        if (found := [_is_inconsistent(trial) for trial in trials if trial.dtype == dtype])
    ]
    return Claim(
        f"{text} ({sum(told)} of {len(told)}: {', '.join(of_each)})", float(np.mean(told)), target,
        low=low, high=high, is_complete=is_complete, row=CACHE,
    )  # fmt: skip


def _is_inconsistent(trial: Trial) -> bool:
    return all(one.consistency_ratio > PAGE_RATIO for one in trial.rounds)


_COLUMNS = (
    "dtype", "fault", "instances", "both rounds deviate", "by consistency", "by outputs alone",
    "both rounds further off than all healthy ones",
    "floors, consistency: least to largest", "mean KL, nats: least to largest",
)  # fmt: skip


def _row(dtype: str, fault: str, trials: Sequence[Trial]) -> list[Cell]:
    consistency = [one.consistency_ratio for trial in trials for one in trial.rounds]
    kl = [trial.kl_nats for trial in trials]
    return [
        dtype, fault, len(trials),
        sum(all(one.deviates for one in trial.rounds) for trial in trials),
        sum(map(_is_inconsistent, trials)),
        sum(by_output_alone(trial) for trial in trials),
        sum(all(one.ratio > trial.rank_limit for one in trial.rounds) for trial in trials),
        f"{min(consistency, default=0.0):.3g} to {max(consistency, default=0.0):.3g}",
        f"{min(kl, default=0.0):.3g} to {max(kl, default=0.0):.3g}",
    ]  # fmt: skip


_NOTES = (
    (
        "The canary asks one text twice, the second time from the prefix cache, of which one block of 16 tokens "
        "is spoilt here before it is read: it holds another request's keys and values (swapped), another block's "
        "of the same text (stale), or its own × 1.5, in every layer. Forwards of Hugging Face's modules; two of "
        "them in a real server are in the part `served`."
    ),
    (
        "By consistency: the states of one token, read from the cache and not, are more than 8 floors apart in "
        "both rounds."
    ),
    (
        "What is further off than all 64 healthy rounds and below 8 floors raises nothing at once: it is one round's "
        "evidence for the sequential test."
    ),
    (
        "Missed: what hides a wrong block in bfloat16 is what rounding is taken to do at least, 2⁻⁸ of a state, and "
        "not what was measured: what enters the first three layers differs among 64 healthy rounds by half of that or "
        "by nothing. Tried on these rounds alone: with 2⁻¹² all 30 are more than 8 floors off, 32 healthy ones at "
        "most 1.2. It is not what the product does, as kernels of other engines do round there."
    ),
    (
        "Two blocks of one prompt that change places, keys with their values, are no fault: attention adds up "
        "whatever order they are in, and their positions are in the keys. A first version of the protocol had "
        "that as swapped; it was changed before anything ran."
    ),
)

"""Engines whose positions are wrong in, how soon traffic alone says so out: as for shares, but all requests are."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from bench.faults.apart import apart
from bench.faults.fourth_protocol import FOURTH, check_fourth_seal
from bench.faults.fresh import drawn_anew
from bench.faults.ledger import Ledger
from bench.faults.pool import Pool, Rows
from bench.faults.replay import Replay, Traffic
from bench.faults.result import Claim
from bench.faults.rows import TEMPLATE
from bench.faults.traffic_protocol import TRAFFIC

KIND = "all requests"
_PLAN = FOURTH["by_traffic"]
MOST_REQUESTS: int = _PLAN["most_requests"]
PLANNED: int = _PLAN["instances"] * len(_PLAN["faults"])
"""Trials of each arm."""

_A_TICK: int = TRAFFIC["population"]["a_tick"]
# Any: JSON.
Found = dict[str, Any]


def trials(
    pool: Pool, arms: Sequence[str], replay_of: Callable[[str], Replay], ledger: Ledger, *, may_run: bool
) -> Iterator[Found]:
    """Every trial that there is or may be run, of each arm. replay_of: what compares with all real healthy requests."""
    check_fourth_seal()
    for name in _PLAN["faults"].values():
        faulty = pool.rows(name)
        for i in range(_PLAN["instances"] if len(faulty) else 0):
            keys = {arm: f"{arm}, {KIND}, {name}, {i}" for arm in arms}
            for arm, key in keys.items():
                if key not in ledger and may_run:
                    ledger.put(key, apart(partial(_trial, replay_of(arm), faulty, i)))
            if all(key in ledger for key in keys.values()):
                yield from (
                    {"arm": arm, "kind": KIND, "set": name, "i": i, **ledger[key]}
                    for arm, key in keys.items()
                )


def _trial(replay: Replay, faulty: Rows, number: int) -> Found:
    traffic = Traffic(lambda rng, count: rng.choice(faulty, count), _A_TICK, change=drawn_anew)
    return asdict(replay.stream(traffic, MOST_REQUESTS // _A_TICK, FOURTH["seed"] + number))


def claims(found: Sequence[Found]) -> Iterator[Claim]:
    """How soon each is told. found: trials with internals."""
    bound = float(FOURTH["targets"]["ticks"] * _A_TICK)
    for fault, name in _PLAN["faults"].items():
        delays = [
            MOST_REQUESTS if one["first"] is None else one["first"]["requests"]
            for one in found
            if one["set"] == name
        ]
        text = f"{fault} by traffic alone, requests to the first alarm, median of {len(delays)} trials"
        if not delays:
            yield Claim(text, None, bound, at_most=True, row=TEMPLATE)
            continue
        yield Claim(
            text, float(np.median(delays)), bound, at_most=True, low=float(min(delays)), high=float(max(delays)),
            is_complete=len(delays) == _PLAN["instances"], row=TEMPLATE,
        )  # fmt: skip


def missed(found: Sequence[Found]) -> Iterator[str]:
    """A sentence for what was told late or never. found: trials with internals."""
    bound = FOURTH["targets"]["ticks"] * _A_TICK
    for fault, name in _PLAN["faults"].items():
        some = [one for one in found if one["set"] == name]
        late = [one for one in some if one["first"] is None or one["first"]["requests"] > bound]
        if late:
            never = sum(one["first"] is None for one in late)
            yield (
                f"Missed: {fault} by traffic alone, {len(late)} of {len(some)} trials not within {bound:,} requests "
                f"({never} never within {MOST_REQUESTS:,}). {_WHY[fault]} Nothing was tried on it."
            )


_WHY = {
    "RoPE θ × 10": "Prompts of at most 64 tokens are moved little by it.",
    "positions + 1": (
        "Prompts are as they were, and five decoded tokens of an answer, one place further from them, have values that "
        "healthy ones have as well: the same fault moves the canary's answers by 0.0002 nats in float32 (part "
        "`prompts`), where it is called equivalent."
    ),
}

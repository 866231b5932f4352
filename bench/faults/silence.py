"""Healthy traffic of awkward kinds in, false alarms of the product's detector, against those allowed, out."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.faults.apart import apart
from bench.faults.fresh import drawn_anew
from bench.faults.ledger import Ledger
from bench.faults.measured import folder, measured
from bench.faults.pool import Pool, Rows
from bench.faults.replay import TICK_SECONDS, Random, Replay, Traffic
from bench.faults.result import Cell, Claim, Result, Table
from bench.faults.traffic_protocol import TRAFFIC, traffic_digest
from bench.faults.workplace import Workplace

_SEED: int = TRAFFIC["seed"]
_NULLS = TRAFFIC["nulls"]
# Any: JSON.
Found = dict[str, Any]
_CONDITIONS = ("alone", "cached", "chunked")


def run(workplace: Workplace) -> Result:
    """One half against the other for real; then each null simulated for hours."""
    pool = measured(workplace)
    healthy = np.random.default_rng(_SEED).permutation(pool.rows("healthy-"))
    ledger = Ledger(folder() / "trials" / f"silence-{traffic_digest()[:16]}-{len(healthy)}.jsonl")
    half = len(healthy) // 2
    found: list[Found] = []

    def measure(name: str, how: str, replay: Replay, traffic: Traffic, ticks: int) -> None:
        if name not in ledger:
            ledger.put(name, apart(partial(_trial, replay, traffic, ticks)))
        found.append(
            {"name": name, "how": how, "requests": ticks * traffic.a_tick, "ticks": ticks, **ledger[name]}
        )

    a_tick = _NULLS["a_tick"]
    hours = max(0.1, workplace.scale * _NULLS["hours"])
    replay = Replay(pool, np.sort(healthy[:half]), half, _SEED)
    measure(
        "one half against the other",
        "real",
        replay,
        Traffic(_in_order(healthy[half:]), a_tick),
        (len(healthy) - half) // a_tick,
    )
    simulated = Replay(pool, np.sort(healthy), TRAFFIC["population"]["reference"], _SEED)
    ticks = round(hours * 3600 / TICK_SECONDS)
    for name, traffic in _nulls(pool, np.sort(healthy), a_tick):
        measure(name, "simulated", simulated, traffic, ticks)
    for condition in _CONDITIONS:
        again = pool.rows(f"again-{condition}-")
        if len(again):
            originals = np.concatenate([pool.rows(f"healthy-{name}-0") for name in TRAFFIC["again"]])
            twins = Replay(pool, np.sort(originals), TRAFFIC["population"]["reference"], _SEED)
            measure(
                f"the same requests, {condition}",
                "simulated",
                twins,
                Traffic(partial(_any_of, again), a_tick, change=drawn_anew),
                ticks,
            )
    return report(found, len(healthy))


def _nulls(pool: Pool, healthy: Rows, a_tick: int) -> Sequence[tuple[str, Traffic]]:
    strata = [
        pool.rows(f"healthy-{name}-") for name in ("claims", "passages", "questions", "instructions", "exams")
    ]
    return [
        ("the mixture itself", Traffic(partial(_any_of, healthy), a_tick, change=drawn_anew)),
        (
            "ticks of one stratum each",
            Traffic(partial(_one_stratum, [one for one in strata if len(one)]), a_tick, change=drawn_anew),
        ),
        (
            "a tenant's burst in each tick",
            Traffic(partial(_burst, healthy), 3 * a_tick, clusters=_one_tenant, change=drawn_anew),
        ),
    ]


def _trial(replay: Replay, traffic: Traffic, ticks: int) -> Found:
    """Alarms of a stream that goes on after a first one: it is looked at until that, so 0 or 1."""
    outcome = replay.stream(traffic, ticks, _SEED)
    return {
        "alarms": int(outcome.first is not None),
        "pages": int(outcome.page is not None),
        "carried": outcome.carried,
    }


def _any_of(rows: Rows, rng: Random, count: int) -> Rows:
    return rng.choice(rows, count)


def _one_stratum(strata: Sequence[Rows], rng: Random, count: int) -> Rows:
    """A tick's requests are of one stratum, which is drawn by its share: proportions are as ever, each tick is not."""
    sizes = np.array([len(one) for one in strata], float)
    return rng.choice(strata[int(rng.choice(len(strata), p=sizes / sizes.sum()))], count)


def _burst(healthy: Rows, rng: Random, count: int) -> Rows:
    """Two thirds of a tick are one request over and over."""
    rows = rng.choice(healthy, count)
    rows[count // 3 :] = rows[0]
    return rows


def _one_tenant(rng: Random, count: int) -> NDArray[np.uint64]:
    """Those two thirds are of one cluster."""
    clusters = rng.integers(0, 2**63, count).astype(np.uint64)
    clusters[count // 3 :] = clusters[0]
    return clusters


def _in_order(rows: Rows) -> Callable[[Random, int], Rows]:
    """Each once."""
    left = iter(rows.tolist())
    return lambda _, count: np.array([next(left) for _ in range(count)], np.intp)


def report(found: Sequence[Found], healthy: int) -> Result:
    """The part's result."""
    planned = (3 + len(_CONDITIONS)) * _NULLS["hours"]
    seconds = sum(one["ticks"] for one in found) * TICK_SECONDS
    tickets, pages = sum(one["alarms"] for one in found), sum(one["pages"] for one in found)
    allowed = seconds / 86_400 + seconds / (30 * 86_400)
    real = sum(one["requests"] for one in found if one["how"] == "real")
    rows: list[list[Cell]] = [
        [one["name"], one["how"], one["requests"], one["ticks"] * TICK_SECONDS / 3600, one["alarms"], one["pages"],
         one["ticks"] * TICK_SECONDS / 86_400, ", ".join(one["carried"][:3])]
        for one in found
    ]  # fmt: skip
    return Result(
        f"{len(found)} nulls, {seconds / 3600:.1f} of {planned:g} hours of the detector's clock; {healthy} healthy "
        "requests.",
        (*_NOTES, f"Protocol of traffic `{traffic_digest()}`."),
        [
            Claim(f"streams that raised a false alarm ({allowed:.2f} expected at most, over {len(found)} streams)",
                  float(tickets), _most(allowed), at_most=True),
            Claim(f"streams that raised a false page ({seconds / (30 * 86_400):.3f} expected at most)", float(pages),
                  _most(seconds / (30 * 86_400)), at_most=True),
            Claim("real requests in the null that is not simulated", float(real), TRAFFIC["targets"]["null_requests"]),
            *(
                Claim(f"false alarms, the same requests {condition}", None, 0.0, at_most=True)
                for condition in _CONDITIONS
                if not any(one["name"].endswith(f", {condition}") for one in found)
            ),
        ],
        [Table("Nulls", _COLUMNS, rows)],
    )  # fmt: skip


def _most(expected: float) -> float:
    """The count that chance exceeds in less than one of twenty runs at the rate that the bound allows."""
    below, count, term = 0.0, 0, float(np.exp(-expected))
    while below + term < 0.95:
        below += term
        count += 1
        term *= expected / count
    return float(count)


_COLUMNS = ("null", "how", "requests", "hours", "alarms", "pages", "alarms expected at most", "carried by")
_NOTES = (
    (
        "Real: one half of the healthy requests is the reference, each of the other is sent once. Simulated: "
        "drawn with replacement, reference (n = 20,000) and traffic from the same requests."
    ),
    (
        "A stream is followed until its first page, each in a copy of the process, so that an alarm there "
        "counts once."
    ),
    (
        "The same requests alone, cached and chunked: asked again of the same engine one at a time, with "
        "their whole prompt in the prefix cache, and in chunks of 16 tokens; the reference is of the same "
        "requests as asked first, so a difference between the two askings of the same few hundred texts "
        "counts as an alarm too."
    ),
    (
        "Bounds of a target are the counts that chance exceeds in less than one of twenty runs at the rate "
        "that is allowed."
    ),
)

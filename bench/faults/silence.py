"""Healthy traffic of awkward kinds in, false alarms of the product's detector, against those allowed, out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.faults import quiet
from bench.faults.apart import apart
from bench.faults.fresh import drawn_anew
from bench.faults.ledger import Ledger
from bench.faults.measured import DETECTOR, folder, measured
from bench.faults.pool import Pool, Rows, drawn
from bench.faults.replay import TICK_SECONDS, Random, Replay, Traffic, distinct
from bench.faults.result import Cell, Claim, Result, Table
from bench.faults.rows import NULL
from bench.faults.second_protocol import SECOND, second_digest
from bench.faults.third_protocol import THIRD, check_third_seal, third_digest
from bench.faults.traffic_protocol import TRAFFIC, traffic_digest
from bench.faults.workplace import Workplace
from introspan_collector.model import Batch, ProducerStatus

_SEED: int = TRAFFIC["seed"]
_NULLS = TRAFFIC["nulls"]
# Any: JSON.
Found = dict[str, Any]
_REAL_SEED: int = SECOND["seed"]
_DRAWN = "all tokens that the sampler drew"
_REAL_NULLS = 4 + len(quiet.AGAIN)


def run(workplace: Workplace) -> Result:
    """Nulls of requests that were all asked once; then what a few hundred of others simulate for hours."""
    check_third_seal()
    found = [*_real(workplace), *_simulated(workplace)]
    return report(found)


def _real(workplace: Workplace) -> Iterator[Found]:
    """Against a reference of requests of their own, each once."""
    if not workplace.dtypes and not any(folder("quiet").glob("*.npz")):
        return
    pool = measured(workplace, "quiet")
    reference, usual = pool.rows(f"{quiet.REFERENCE}-"), pool.rows(f"{quiet.USUAL}-")
    replay = Replay(pool, reference, len(reference), _REAL_SEED)
    key = f"silence-{second_digest()[:16]}-{len(reference)}"
    ledger = Ledger(folder("quiet") / "trials" / f"{key}.jsonl")
    strata = [pool.rows(f"{quiet.USUAL}-{name}-") for name in SECOND["nulls"]["a_slice"]]
    rng = np.random.default_rng(_REAL_SEED)
    a_tick: int = SECOND["nulls"]["a_tick"]
    streams = [
        ("the mixture, other requests", rng.permutation(usual), distinct),
        ("ticks of one stratum each", _by_stratum(strata, a_tick, rng), distinct),
        ("a tenant's burst in each tick", _by_stratum(strata, a_tick, rng), _one_tenant),
        *(
            (f"the same requests, {kind}", rng.permutation(pool.rows(f"{kind}-")), distinct)
            for kind in quiet.AGAIN
        ),
    ]
    wanted = [
        (name, len(rows) // a_tick, Traffic(_in_order(rows), a_tick, clusters=clusters))
        for name, rows, clusters in streams
    ]
    everything = np.arange(len(pool.of_set))
    counts = _Counts(drawn(folder("quiet")))
    a_set = len(everything) // max(len(counts.each), 1)
    counted = Traffic(_in_order(everything), a_set, change=counts)
    for name, ticks, traffic in (*wanted, (_DRAWN, len(counts.each), counted)):
        if not ticks:
            continue
        # What was added since is another stream.
        place = f"{name}, {ticks}"
        if place not in ledger and workplace.may_run:
            ledger.put(place, apart(partial(_trial, replay, traffic, ticks)))
        if place in ledger:
            requests = ticks * traffic.a_tick
            yield {"name": name, "how": "real", "requests": requests, "ticks": ticks, **ledger[place]}


class _Counts:
    """A producer that says how many tokens its sampler has drawn, a set of requests after another."""

    def __init__(self, each: NDArray[np.float64]) -> None:
        self.each = each
        self._left = iter(each.cumsum(axis=0))

    def __call__(self, batch: Batch, _: Random) -> Batch:
        tokens, low, high, total = next(self._left).tolist()
        status = ProducerStatus(0, 0, 0.0, (), (), 0, 0, 0, 1.0, int(tokens), int(low), int(high), total)
        return replace(batch, tables=(), status=status)


def _by_stratum(strata: Sequence[Rows], a_tick: int, rng: Random) -> Rows:
    """Every request once, in ticks of one stratum, whose order is drawn."""
    whole = [rng.permutation(rows)[: len(rows) // a_tick * a_tick].reshape(-1, a_tick) for rows in strata]
    return np.concatenate(rng.permutation(np.concatenate(whole)))


def _simulated(workplace: Workplace) -> Iterator[Found]:
    pool = measured(workplace)
    healthy = np.sort(pool.rows("healthy-"))
    ledger = Ledger(folder() / "trials" / f"silence-{DETECTOR}-{traffic_digest()[:16]}-{len(healthy)}.jsonl")
    hours = max(0.1, workplace.scale * _NULLS["hours"])
    ticks = round(hours * 3600 / TICK_SECONDS)
    streams = _nulls(pool, healthy, _NULLS["a_tick"])
    # The reference of 20,000 is drawn for those that are still to be run.
    replay = None
    for name, traffic in streams:
        if name not in ledger and workplace.may_run:
            replay = replay or Replay(pool, healthy, TRAFFIC["population"]["reference"], _SEED)
            ledger.put(name, apart(partial(_trial, replay, traffic, ticks)))
        requests = ticks * traffic.a_tick
        if name in ledger:
            yield {"name": name, "how": "simulated", "requests": requests, "ticks": ticks, **ledger[name]}


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


def report(found: Sequence[Found]) -> Result:
    """The part's result."""
    seconds = sum(one["ticks"] for one in found) * TICK_SECONDS
    tickets, pages = sum(one["alarms"] for one in found), sum(one["pages"] for one in found)
    allowed = seconds / 86_400 + seconds / (30 * 86_400)
    rows: list[list[Cell]] = [
        [one["name"], one["how"], one["requests"], one["ticks"] * TICK_SECONDS / 3600, one["alarms"], one["pages"],
         one["ticks"] * TICK_SECONDS / 86_400, ", ".join(one["carried"][:3])]
        for one in found
    ]  # fmt: skip
    text = f"false alarms in {len(found)} streams of {seconds / 3600:.1f} h in all"
    return Result(
        f"{len(found)} nulls, {seconds / 3600:.1f} hours of the detector's clock.",
        (
            *_NOTES,
            f"Protocol of the simulated ones `{traffic_digest()}`, amended before they ran.",
            _slices(),
        ),
        [
            *_real_claims([one for one in found if one["how"] == "real"]),
            Claim(f"{text}, {allowed:.2f} expected at most", float(tickets), _most(allowed), at_most=True, row=NULL),
            Claim(f"pages in them, {seconds / (30 * 86_400):.3f} expected at most", float(pages),
                  _most(seconds / (30 * 86_400)), at_most=True, row=NULL),
        ],
        [Table("Nulls", _COLUMNS, rows)],
        protocol=second_digest(),
    )  # fmt: skip


def _slices() -> str:
    return (
        f"Passages are used up in slice 15, so that a third protocol, `{third_digest()}`, added a slice of real "
        f"requests before it was asked: {THIRD['nulls']['slices']} in all."
    )


def _real_claims(found: Sequence[Found]) -> Iterator[Claim]:
    """Real requests of the null that has the fewest, and what was raised among all of them."""
    fewest = min((one["requests"] for one in found), default=None)
    is_complete = len(found) == _REAL_NULLS
    bound = SECOND["targets"]["null_requests"]
    text = f"real requests a null, the fewest of {len(found)} nulls; wanted are {_REAL_NULLS}"
    yield Claim(text, fewest, bound, is_complete=is_complete, row=NULL)
    alarms = float(sum(one["alarms"] for one in found))
    total = sum(one["requests"] for one in found)
    text = f"false alarms in {total} real requests of {len(found)} nulls"
    bound = SECOND["targets"]["null_alarms"]
    yield Claim(text, alarms if found else None, bound, at_most=True, is_complete=is_complete, row=NULL)


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
        "Real: requests to a vLLM engine in bfloat16, each sent once, against a reference of 2,000 others of the "
        "same mixture: claims, passages of novels, messages in the chat template, exam questions. In another "
        "order they are ticks of one stratum each, and bursts, in which two thirds of a tick are one tenant's."
    ),
    (
        "The same requests alone, cached and chunked: asked again one at a time, with what fills a block of 32 "
        "tokens in the prefix cache, and in chunks of 16 tokens. Answers are drawn anew."
    ),
    (
        "Simulated: reference (n = 20,000) and traffic are drawn with replacement from a few hundred requests in "
        "float32, with new values of sampler.pit; this is longer, and weaker evidence."
    ),
    (
        "A stream is followed until its first page, each in a copy of the process, so that an alarm there counts "
        "once. Bounds of a target are the counts that chance exceeds in less than one of twenty runs at the rate "
        "that is allowed."
    ),
    (
        "Requests were asked for again in four goes as time allowed, always the next slice of the plan. Whole ticks "
        "are counted."
    ),
)

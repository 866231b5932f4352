"""Tokens drawn at a wrong temperature, wrong greedy tokens, and loops in; how soon it is noticed out."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.faults import draws, greedy, loops
from bench.faults.apart import apart
from bench.faults.draws import U
from bench.faults.fourth_protocol import fourth_digest
from bench.faults.ledger import Ledger
from bench.faults.measured import folder, measured
from bench.faults.pool import Pool
from bench.faults.replay import Random, Replay, Traffic
from bench.faults.result import Cell, Claim, Result, Table
from bench.faults.rows import GREEDY, SAMPLER
from bench.faults.traffic_protocol import TRAFFIC, traffic_digest
from bench.faults.workplace import Workplace, drawn
from demo.model import cache_folder, prepare
from introspan.observation import Drawn
from introspan_collector.model import Batch, ProducerStatus

_SEED: int = TRAFFIC["seed"]
_SAMPLER = TRAFFIC["sampler"]
_MEASURED_IN_PART = "8 of 64 tokens, the default"
_STRIDE: int = TRAFFIC["loops"]["token_stride"]
Tokens = NDArray[np.float64]
# Any: JSON.
Found = dict[str, Any]


def run(workplace: Workplace) -> Result:
    """Every temperature in each way of measuring; then the real engine's greedy fault, then loops."""
    pool = measured(workplace)
    rows = draws.logits(prepare(cache_folder(), workplace.progress.console.print), folder() / "logits.npy")
    u = {at: draws.pits(rows, at, _SAMPLER["draws_a_position"], _SEED) for at in _SAMPLER["temperatures"]}
    replay = Replay(pool, healthy := pool.rows("healthy-"), len(healthy), _SEED)
    store = Ledger(folder() / "trials" / f"sampler-counts-{traffic_digest()[:16]}-{len(healthy)}.jsonl")
    wanted = [
        (f"{at}, {way}, {i}", at, way, i)
        for at in _SAMPLER["temperatures"]
        for way in _SAMPLER["ways"]
        for i in range(max(1, round(workplace.scale * _SAMPLER["instances"])))
    ]
    found: dict[str, Found] = {}
    wanted.sort(key=lambda one: drawn(one[0]))
    for key, at, way, i in workplace.progress.track(wanted, description="sampler"):
        if key not in store and workplace.may_run:
            store.put(key, apart(partial(_trial, replay, u[at], at, way, i)))
        if key in store:
            found[key] = {"temperature": at, "way": way, **store[key]}
    many = Replay(pool, healthy, TRAFFIC["population"]["reference"], _SEED)
    unmeasured = greedy.claim(folder(greedy.PLAN))
    return report(list(found.values()), _greedy(pool, replay), unmeasured, loops.found(_SEED, many))


def _trial(replay: Replay, u: U, temperature: float, way: str, number: int) -> Found:
    measures = _SAMPLER["ways"][way]
    traffic = Traffic(
        lambda rng, count: rng.choice(replay.healthy, count),
        measures["segments_a_second"],
        1.0,
        change=_Counted(u, measures["measured"]),
    )
    limit = _SAMPLER["most_tokens"][str(temperature)]
    seconds = limit // (measures["measured"] * measures["segments_a_second"])
    return asdict(replay.stream(traffic, seconds, _SEED + number))


class _Counted:
    """A producer that has drawn so many tokens of the faulty sampler for each segment, and counts them."""

    def __init__(self, u: U, tokens_a_segment: int) -> None:
        self._u = u
        self._tokens = tokens_a_segment
        self._drawn = Drawn()

    def __call__(self, batch: Batch, rng: Random) -> Batch:
        """The batch with the producer's counts, and without its segments."""
        self._drawn = self._drawn.plus(
            rng.choice(self._u, len(batch.tables[0]) * self._tokens).astype(np.float32)
        )
        drawn = self._drawn
        status = ProducerStatus(
            0, 0, 0.0, (), (), 0, 0, 0, 1.0, drawn.tokens, drawn.low, drawn.high, drawn.total
        )
        return replace(batch, tables=(), status=status)


def _greedy(pool: Pool, replay: Replay) -> list[Cell]:
    """The set of the engine whose greedy sampler is wrong, one request after another, until the first alarm."""
    rows = pool.rows("sampler-greedy")
    column = [column.signal for column in pool.decoded.schema.columns].index("sampler.greedy_mismatch")
    wrong = pool.decoded.values[rows, column] > 0
    if not len(rows):
        return ["–", None, None, None]
    order = iter(rows.tolist())
    traffic = Traffic(lambda _, count: np.array([next(order) for _ in range(count)], np.intp), 1, 1.0)
    outcome = apart(lambda: asdict(replay.stream(traffic, len(rows), _SEED)))
    first = None if outcome["page"] is None else outcome["page"]["requests"]
    return ["vLLM", len(rows), int(np.argmax(wrong)) + 1 if wrong.any() else None, first]


def report(found: Sequence[Found], wrong: Sequence[Cell], unmeasured: Claim, looped: loops.Loops) -> Result:
    """The part's result. wrong: the engine's greedy fault in measured tokens, unmeasured: the same in all tokens."""
    claims, rows = [], []
    for at in _SAMPLER["temperatures"]:
        for way, measures in _SAMPLER["ways"].items():
            some = [one for one in found if one["temperature"] == at and one["way"] == way]
            first = _tokens(some, "first", measures["measured"])
            page = _tokens(some, "page", measures["measured"])
            delivered = measures["delivered"] / measures["measured"]
            rows.append(
                [
                    at, _shown(way), len(some), _quantiles(first), _never(some, "first"),
                    _quantiles(page), _never(some, "page"),
                    float(np.median(first) * delivered),
                ]
            )  # fmt: skip
            target = TRAFFIC["targets"]["sampled_tokens"].get(str(at))
            if target is not None and way == _SAMPLER["claimed_way"]:
                claims.append(
                    _claim(f"temperature 1 → {at}: measured tokens to the first alarm, median", first, target)
                )
                claims.append(_claim(f"temperature 1 → {at}, {_shown(way)}, to the page", page, None))
            elif target is not None:
                claims.append(_claim(f"temperature 1 → {at}: measured tokens, {_shown(way)}", first, target))
            if target is not None and way == _MEASURED_IN_PART:
                of = f"temperature 1 → {at}: delivered tokens"
                claims.append(_claim(f"{of}, where {_shown(way)} are measured", first * delivered, target))
                text = (
                    f"{of} at the default stride: one of {_STRIDE} is measured, of as many measured as above"
                )
                claims.append(_claim(text, first * _STRIDE, target))
    late = None if wrong[3] is None or wrong[2] is None else float(str(wrong[3])) - float(str(wrong[2]))
    text = "requests to the page, counted from the first wrong token that was *measured*"
    claims.append(Claim(f"greedy sampler not greedy: {text}", late, 0, at_most=True, row=GREEDY))
    claims.append(unmeasured)
    return Result(
        f"{len(found)} of {len(rows) * _SAMPLER['instances']} trials of the protocol.",
        _NOTES,
        [*claims, *looped.claims],
        [Table("Temperature", _COLUMNS, rows), Table("Greedy", _GREEDY_COLUMNS, [wrong]), looped.table],
        protocol=traffic_digest(),
    )


def _shown(way: str) -> str:
    """The protocol calls a way the default that is not: of a burst of three tokens one has its U measured."""
    return way.removesuffix(", the default")


def _tokens(found: Sequence[Found], copy: str, measured_a_segment: int) -> Tokens:
    """Measured tokens until the alarm, the most that were sent where there was none."""
    sent = [_SAMPLER["most_tokens"][str(one["temperature"])] for one in found]
    until = [None if one[copy] is None else one[copy]["requests"] * measured_a_segment for one in found]
    return np.array(
        [most if tokens is None else tokens for tokens, most in zip(until, sent, strict=True)], float
    )


def _quantiles(tokens: Tokens) -> str:
    low, middle, high = (
        np.quantile(tokens, [0.1, 0.5, 0.9], method="higher") if len(tokens) else (np.nan,) * 3
    )
    return f"{middle:g} ({low:g}–{high:g})"


def _never(found: Sequence[Found], copy: str) -> int:
    return sum(one[copy] is None for one in found)


def _claim(text: str, tokens: Tokens, bound: float | None) -> Claim:
    row = SAMPLER if bound is not None else ""
    if not len(tokens):
        return Claim(text, None, bound, at_most=True, row=row)
    rng = np.random.default_rng(_SEED)
    medians = np.median(rng.choice(tokens, (2000, len(tokens))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975], method="nearest")
    is_complete = len(tokens) >= _SAMPLER["instances"]
    return Claim(
        text, float(np.median(tokens)), bound,
        at_most=True, low=float(low), high=float(high), is_complete=is_complete, row=row,
    )  # fmt: skip


_COLUMNS = (
    "temperature used for 1", "measured", "instances", "measured tokens to the first alarm: median (10–90 %)", "never",
    "to the page", "never", "delivered tokens to the first alarm, median",
)  # fmt: skip
_GREEDY_COLUMNS = ("engine", "requests", "first request with a measured wrong token", "request that paged")
_NOTES = (
    (
        "Simulated, labelled so: tokens are drawn from SmolLM2's own next-token distributions at the wrong "
        "temperature and go through capture's own `sampler.pit`, which believes in temperature 1. Segments "
        "then go through the product's detector with the budget it has beside all other streams; each trial "
        "in a copy of the process, 1 s a step."
    ),
    (
        "The worker counts every token of which it measured U, as it is drawn, and the detector bets on each: how they "
        "lie in segments makes no difference but for the tokens of a second, which are looked at together. At the "
        "default stride U is measured at the first token of an answer and at one in 24 after it; the protocol called 8 "
        "of 64 the default, which it is not."
    ),
    (
        "Missed: where all of 64 tokens are measured, 256 come in each second, and counts are looked at once a "
        "second: 256 is the first look, and at that rate nothing can be told within 100. While the detector bet on "
        "segments and not on counted tokens, it took 768 to 3,840 tokens measured so, and 160 to 384 with 8 of 64, in "
        "six trials each. To look more often than once a second was not tried."
    ),
    (
        "Missed: delivered tokens. What is not measured says nothing: where 8 of 64 are measured it takes eight times "
        "as many, and at the default stride, where U is measured of one in 24, 24 times; the latter is reckoned from "
        "the former and was not run. A smaller stride (`token_stride`) is what would change it; none was tried here."
    ),
    (
        "Greedy: a plugin of the test makes vLLM take the second-likeliest token in 5 % of draws. Requests count from "
        "the first *measured* wrong token; one that is not measured is not seen. Delivered tokens are of an engine of "
        "its own, with the default stride and one request after another (protocol "
        f"`{fourth_digest()}`): one in 24 is looked at, one in 20 is wrong, and a segment is sent when it ends, so "
        "that it takes hundreds. Missed: a smaller stride is what would change it; none was tried here."
    ),
)

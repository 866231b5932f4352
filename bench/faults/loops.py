"""Texts of people, and the same with a loop at their end, in; which capture's output.repetition tells apart out."""

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

from bench.faults import texts
from bench.faults.apart import apart
from bench.faults.measured import folder
from bench.faults.replay import Random, Replay, Traffic
from bench.faults.result import Cell, Claim, Table
from bench.faults.rows import LOOP
from bench.faults.tables import load
from bench.faults.third_protocol import THIRD
from bench.faults.traffic import LOOPING
from bench.faults.traffic_protocol import TRAFFIC
from demo.model import cache_folder, prepare
from introspan.capture.output.repetition import longest_period_tail
from introspan.capture.rows import BURST
from introspan_collector.aggregate.aggregator import REPETITION_TOKENS
from introspan_collector.model import Batch
from introspan_wire.signals import REPETITION_PERIODS, Kind

Tokens = NDArray[np.int64]
_LOOPING = 0.05
_A_TICK = 16
_MOST_REQUESTS = 3200
_TRIALS = 8
_LOOPS = TRAFFIC["loops"]
_ENGINE = THIRD["loop"]


@dataclass(frozen=True, slots=True)
class Loops:
    """Claims and a table."""

    claims: list[Claim]
    table: Table


def found(seed: int, replay: Replay) -> Loops:
    """Loops of every period behind texts, and texts alone; and traffic in which a share of the answers loops."""
    # Any: transformers leaves its tokenizers untyped.
    tokenizer = AutoTokenizer.from_pretrained(prepare(cache_folder(), print))
    chosen = [*texts.passages(), *texts.claims(), *texts.questions(), *texts.exams()]
    random = np.random.default_rng(seed)
    healthy = [
        np.array(tokenizer(one.content).input_ids) for one in texts.drawn(chosen, _LOOPS["healthy"], seed)
    ]
    false = sum(any(_tail(ids, n) for n in range(1, len(ids) + 1)) for ids in healthy)
    rows: list[list[Cell]] = []
    hits = total = 0
    prefixes = [ids for ids in healthy if len(ids) >= REPETITION_PERIODS]
    for low, high in ((1, 8), (9, 32), (33, 56), (57, REPETITION_PERIODS)):
        delays = []
        for period in range(low, high + 1):
            for _ in range(_LOOPS["instances_a_period"]):
                prefix = prefixes[int(random.integers(len(prefixes)))]
                delays.append(_delay(prefix, period, int(random.integers(_LOOPS["token_stride"]))))
        in_time = sum(delay <= max(3 * REPETITION_PERIODS, 192) for delay in delays)
        hits, total = hits + in_time, total + len(delays)
        rows.append([f"{low}–{high}", len(delays), in_time, float(np.median(delays)), max(delays)])
    targets = TRAFFIC["targets"]
    return Loops(
        [
            Claim(f"loops whose measured tail reaches {REPETITION_TOKENS} tokens within 3 periods or 192 tokens "
                  f"({hits} of {total})", hits / total, targets["loops"], row=LOOP),
            Claim(f"false ones in {len(healthy)} healthy texts", float(false), 0, at_most=True, row=LOOP),
            _in_engine(folder() / f"{LOOPING}.npz"),
            _alarms(seed, replay),
        ],
        Table("Loops", ("period", "instances", "in time", "tokens until seen, median", "most"), rows),
    )  # fmt: skip


def _in_engine(path: Path) -> Claim:
    """How many answers of a vLLM engine are seen to loop in time, by the segments that its capture made of them."""
    text = f"answers of a vLLM engine that loop, seen within {_ENGINE['in_time_tokens']} tokens"
    if not path.exists():
        return Claim(text, None, THIRD["targets"]["loops"], row=LOOP)
    table = load(path)[0][Kind.DECODED]
    signals = [column.signal for column in table.schema.columns]
    is_seen = table.values[:, signals.index("output.repetition")] >= REPETITION_TOKENS
    # A segment is there when its last token is.
    end = table.token_start.astype(np.int64) + table.token_count - table.prompt_tokens
    of_request = np.array(table.request_id)
    in_time = [
        bool((is_seen & (end <= _ENGINE["in_time_tokens"]))[of_request == name].any())
        for name in sorted(set(table.request_id))
    ]
    text = f"{text} ({sum(in_time)} of {len(in_time)})"
    return Claim(text, sum(in_time) / len(in_time), THIRD["targets"]["loops"], row=LOOP)


def _alarms(seed: int, replay: Replay) -> Claim:
    """How soon traffic raises an alarm of which one answer in twenty loops; all were sent where there was none."""
    ticks = _MOST_REQUESTS // _A_TICK
    traffic = Traffic(lambda rng, count: rng.choice(replay.healthy, count), _A_TICK, change=_some_loop)
    outcomes = [apart(partial(_stream, replay, traffic, ticks, seed + i)) for i in range(_TRIALS)]
    delays = [_MOST_REQUESTS if one["first"] is None else one["first"]["requests"] for one in outcomes]
    return Claim(
        f"requests to the first alarm where {_LOOPING:.0%} of the answers loop, median of {_TRIALS} trials with a "
        "simulated reference of 20,000",
        float(np.median(delays)), None, at_most=True, low=float(min(delays)), high=float(max(delays)),
    )  # fmt: skip


def _stream(replay: Replay, traffic: Traffic, ticks: int, seed: int) -> dict[str, Any]:
    return asdict(replay.stream(traffic, ticks, seed))


def _some_loop(batch: Batch, rng: Random) -> Batch:
    changed = []
    for table in batch.tables:
        values = table.values.copy()
        signals = [column.signal for column in table.schema.columns]
        if table.schema.kind is Kind.DECODED:
            values[rng.random(len(table)) < _LOOPING, signals.index("output.repetition")] = REPETITION_TOKENS
        changed.append(replace(table, values=values))
    return replace(batch, tables=tuple(changed))


def _tail(ids: Tokens, length: int) -> bool:
    return longest_period_tail(ids[:length]) >= REPETITION_TOKENS


def _delay(prefix: Tokens, period: int, phase: int) -> int:
    """Tokens from the loop's first, which belong to its first period, until a measured row shows it."""
    copies = -(-4 * REPETITION_PERIODS // period) + 1
    ids = np.concatenate([prefix[:-period], np.tile(prefix[-period:], copies)])
    for count in range(1, len(ids) - len(prefix) + period):
        is_measured = (count + phase) % _LOOPS["token_stride"] < BURST
        if is_measured and _tail(ids, len(prefix) - period + count):
            return count
    return len(ids)

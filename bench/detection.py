"""Nothing in, what detection costs the thread that reads the log out: a row, the close of a tick, a checkpoint."""

import json
import time
from dataclasses import replace
from typing import Any

import numpy as np

from bench.fleet import Shape, batch, origin, schema, table
from introspan_collector.detect.detector import Detector
from introspan_collector.detect.sequential.bets import Bets
from introspan_collector.detect.sequential.budget import shared_out
from introspan_collector.detect.sequential.e_detector import EDetector
from introspan_collector.detect.sequential.evidence import Stream
from introspan_collector.detect.sequential.tick import Ticks
from introspan_collector.detect.settings import DetectSettings
from introspan_collector.model import Batch
from introspan_wire.signals import Kind

# What the SDK measures by default of a model with 32 layers and 32 heads.
_SHAPE = Shape(
    residual_layers=tuple(range(0, 32, 4)),
    attention_layers=(0, 8, 16, 24),
    projection_layers=(16, 30),
    heads=32,
)
_SCHEMAS = {kind: schema(_SHAPE, kind) for kind in (Kind.PROMPT, Kind.DECODED)}
_START_UNIX_SECONDS = 1_800_000_000.0
_ROWS = {Kind.PROMPT: 10, Kind.DECODED: 20}
_REPLICAS = 4
_SUBJECTS = 64
_STREAMS_EACH = 500
_CLUSTERS = 30


class _Traffic:
    """Batches of one model that several replicas serve: ten requests and twenty decoded segments of theirs each."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._count = 0

    def batch(self, now: float, model: str = "model", adapter: str = "") -> Batch:
        """A frame as an exporter sends it."""
        self._count += 1
        nano = int(now * 1e9)
        prompt, decoded = (
            table(of, _ROWS[kind], self._rng, time_unix_nano=nano, adapter=adapter)
            for kind, of in _SCHEMAS.items()
        )
        requests = prompt.request_id
        decoded = replace(
            decoded,
            request_id=[*requests, *requests],
            cluster_key=np.tile(prompt.cluster_key, 2),
            segment_index=np.repeat(np.array([1, 2], np.uint32), len(requests)),
        )
        who = origin(model, f"replica-{self._count % _REPLICAS}")
        return batch((prompt, decoded), who=who, number=self._count, received_unix_nano=nano)


class _Clock:
    def __init__(self) -> None:
        self.now = _START_UNIX_SECONDS

    def __call__(self) -> float:
        return self.now


def run() -> dict[str, Any]:  # Any: numbers, nested
    """Every measurement by name, in seconds of processor time of the one thread."""
    return {"rows": _rows(), "tick": _tick()}


def _rows() -> dict[str, float]:
    """Cost of a row without and with a frozen reference, and of what happens between batches."""
    clock = _Clock()
    detector = Detector(DetectSettings(frozen_hours=0.0), clock=clock)
    traffic = _Traffic()
    without = _fed(detector, traffic, clock, 40)
    while not _frozen(detector):
        _fed(detector, traffic, clock, 100)
    _fed(detector, traffic, clock, 50)
    with_reference = _fed(detector, traffic, clock, 400)
    began = time.thread_time()
    size = len(detector.snapshot())
    saving = time.thread_time() - began
    with detector.still() as state:
        streams = len(state.pieces.roster.streams)
    return {
        "streams": streams,
        "microseconds_per_row_without_reference": without["consume"],
        "microseconds_per_row_with_reference": with_reference["consume"],
        "microseconds_per_row_between_batches": with_reference["advance"],
        "longest_advance_ms": with_reference["longest_advance_ms"],
        "snapshot_ms": 1e3 * saving,
        "snapshot_mb": size / 1e6,
    }


def _frozen(detector: Detector) -> bool:
    with detector.still() as state:
        return any(
            watch.reference is not None and not watch.is_provisional for watch in state.watches.values()
        )


def _fed(detector: Detector, traffic: _Traffic, clock: _Clock, batches: int) -> dict[str, float]:
    """Microseconds per row of consume and of advance; a batch comes every half second, ten times real time apart."""
    made = [traffic.batch(clock.now + 0.5 * i) for i in range(batches)]
    consumed = advanced = longest = 0.0
    for one in made:
        clock.now += 0.5
        began = time.thread_time()
        detector.consume(one)
        middle = time.thread_time()
        detector.advance()
        end = time.thread_time()
        consumed += middle - began
        advanced += end - middle
        longest = max(longest, end - middle)
    rows = batches * sum(_ROWS.values())
    return {
        "consume": 1e6 * consumed / rows,
        "advance": 1e6 * advanced / rows,
        "longest_advance_ms": 1e3 * longest,
    }


def _tick() -> dict[str, float]:
    """Close of a tick of 64 models of 500 streams with evidence of 30 clusters each, and both copies of the test."""
    rng = np.random.default_rng(0)
    streams = tuple(
        Stream(f"m{i}", "", "", "bank", "prompt", "residual.log_rms", j, "high")
        for i in range(_SUBJECTS)
        for j in range(_STREAMS_EACH)
    )
    bound = np.full(len(streams), 0.5)
    ticks, bets, tests = Ticks(), Bets(), (EDetector(86_400.0), EDetector(30 * 86_400.0))
    began = time.thread_time()
    ticks.follow(streams, np.full(len(streams), 8, np.int64))
    bets.follow(streams)
    for test in tests:
        test.follow(streams, bound, shared_out(streams, bound))
    followed = time.thread_time() - began
    ticks.close(_START_UNIX_SECONDS)
    adding = 0.0
    for i in range(_SUBJECTS):
        rows = np.arange(i * _STREAMS_EACH, (i + 1) * _STREAMS_EACH)
        clusters = rng.integers(2**63, size=(_CLUSTERS, 1)).astype(np.uint64)
        x = rng.random((_CLUSTERS, _STREAMS_EACH))
        began = time.thread_time()
        ticks.add(rows, clusters, x)
        adding += time.thread_time() - began
    began = time.thread_time()
    tick = ticks.close(_START_UNIX_SECONDS + 10.0)
    assert tick is not None, "every stream has 30 clusters"
    closed = time.thread_time()
    for test in tests:
        test.update(tick.x, _START_UNIX_SECONDS + 10.0, bets.take())
    updated = time.thread_time()
    return {
        "streams": len(streams),
        "follow_ms": 1e3 * followed,
        "add_ms": 1e3 * adding,
        "close_ms": 1e3 * (closed - began),
        "update_ms": 1e3 * (updated - closed),
    }


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))

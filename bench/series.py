"""Nothing in, what the aggregates cost out: rows a second, memory, and the time of a scrape at the series cap."""

import gc
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.fleet import Shape, batch, origin, schema, table
from introspan_collector.aggregate.aggregator import Aggregator
from introspan_collector.archive.archive import Archive
from introspan_collector.expose.metrics import render
from introspan_collector.expose.sources import Sources
from introspan_collector.model import Stats
from introspan_collector.view import ArchiveStats

_MODELS = 1_000
_LAYERS = 32
_SLOTS = 12
_ROUNDS = 5
_OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class _NoArchive:
    """Stands where the archive is, which is not what is measured here."""

    def tracks(self, *_: object) -> list[Any]:  # Any: never filled
        """None."""
        return []

    def stats(self) -> ArchiveStats:
        """Zeros."""
        return ArchiveStats(0, 0, 0, 0.0, 0, 0, 0, 0, 0)


def run() -> dict[str, Any]:  # Any: numbers and text, nested
    """Every measurement by name."""
    return {"aggregate": _throughput(), "archive": _archived(), "cap": _at_the_cap()}


def _throughput() -> dict[str, float]:
    """Rows a second that one core aggregates, in frames as the SDK sends them."""
    of = schema(Shape())
    rng = np.random.default_rng(1)
    tables = [table(of, 32, rng, traced_share=0.1) for _ in range(20)]
    rates = []
    for _ in range(_ROUNDS):
        aggregator = Aggregator()
        now = time.time_ns()
        batches = [
            batch(tables[i % 20], who=origin(replica=f"replica-{i % 8}"), number=i, received_unix_nano=now)
            for i in range(500)
        ]
        started = time.process_time()
        for one in batches:
            aggregator.consume(one)
        aggregator.view()
        rates.append(32 * len(batches) / (time.process_time() - started))
    return {"columns": len(of.columns), "rows_per_cpu_second": round(float(np.median(rates)))}


def _archived() -> dict[str, float]:
    """Rows a second that one core writes to Parquet and rollups, and bytes a row."""
    of = schema(Shape())
    rng = np.random.default_rng(3)
    now = time.time_ns()
    tables = [table(of, 32, rng, time_unix_nano=now, traced_share=0.1) for _ in range(500)]
    rates, sizes = [], []
    for _ in range(_ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            archive = Archive(Path(folder))
            started = time.process_time()
            for number, one in enumerate(tables):
                archive.consume(batch(one, number=number, received_unix_nano=now))
            archive.flush()
            rates.append(32 * len(tables) / (time.process_time() - started))
            sizes.append(archive.stats().bytes_written / (32 * len(tables)))
    return {
        "columns": len(of.columns),
        "rows_per_cpu_second": round(float(np.median(rates))),
        "bytes_per_row": round(float(np.median(sizes))),
    }


def _at_the_cap() -> dict[str, Any]:  # Any: as in run
    """Memory and scrape once 1,000 models of 32 layers have filled the cap and every slot."""
    gc.collect()
    before = _resident_mb()
    of = schema(Shape(residual_layers=tuple(range(_LAYERS)), attention_layers=tuple(range(_LAYERS)), heads=4))
    rows = table(of, 2, np.random.default_rng(2), traced_share=1.0)
    now = time.time_ns()
    aggregator = Aggregator(clock_unix_nano=lambda: now)
    number = 0
    for slot in range(_SLOTS):
        received = now - (_SLOTS - 1 - slot) * 10_000_000_000
        for model in range(_MODELS):
            who = origin(model=f"organisation/model-{model:04d}", replica=f"pod-{model:04d}-0:8000")
            aggregator.consume(batch(rows, who=who, number=number, received_unix_nano=received))
            number += 1
    view = aggregator.view()
    sources = Sources(aggregator, _NoArchive(), _no_stats, lambda: True)
    text = _scrape(lambda: render(sources, "text/plain")[0])
    openmetrics = _scrape(lambda: render(sources, _OPENMETRICS)[0])
    gc.collect()
    return {
        "models": _MODELS,
        "layers": _LAYERS,
        "series_limit": view.series_limit,
        "series": view.series_used,
        "resident_mb": round(_resident_mb()),
        "resident_before_mb": round(before),
        "snapshot_bytes": len(aggregator.snapshot()),
        "text": text,
        "openmetrics": openmetrics,
    }


def _scrape(render_once: Callable[[], bytes]) -> dict[str, float]:
    seconds = []
    size = 0
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        size = len(render_once())
        seconds.append(time.perf_counter() - started)
    return {
        "seconds": round(float(np.median(seconds)), 3),
        "seconds_worst": round(max(seconds), 3),
        "bytes": size,
    }


def _no_stats() -> Stats:
    none: dict[str, Any] = dict.fromkeys(
        Stats.__dataclass_fields__, 0
    )  # Any: numbers, and the two mappings below
    return Stats(**none | {"refused_batches": {}, "dropped": {}})


def _resident_mb() -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmRSS")


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))

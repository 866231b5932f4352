"""Nothing in, what series cost out: rows a second, the collector's memory, and a scrape at the series cap."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.collector import Running, collector
from bench.fleet import Shape, batch, origin, schema, table
from bench.producer import Producer
from introspan_collector.aggregate.aggregator import Aggregator
from introspan_collector.archive.archive import Archive

_MODELS = 1_000
_LAYERS = 32
_SENT_ROUNDS = 4
_ROUNDS = 5
_OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def run() -> dict[str, Any]:  # Any: numbers and text, nested
    """Every measurement by name; takes about a minute."""
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
    """Memory of a real collector fed by 1,000 models of 32 layers, all measured, and scrapes over HTTP."""
    every = tuple(range(_LAYERS))
    of = schema(Shape(residual_layers=every, attention_layers=every, heads=4))
    rows = table(of, 2, np.random.default_rng(2), time_unix_nano=time.time_ns(), traced_share=1.0)
    with tempfile.TemporaryDirectory() as folder, collector(Path(folder)) as running:
        at_start = _peak_mb(running.pid)
        for _ in range(_SENT_ROUNDS):
            for model in range(_MODELS):
                who = origin(model=f"organisation/model-{model:04d}", replica=f"pod-{model:04d}-0:8000")
                with Producer(running.grpc, who) as producer:
                    producer.send(rows)
        sent = _peak_mb(running.pid)
        text, openmetrics = _scrapes(running, "text/plain"), _scrapes(running, _OPENMETRICS)
        series = _metric(running.get("/metrics").text, "introspan_collector_series")
        return {
            "models": _MODELS,
            "layers": _LAYERS,
            "series": series,
            "peak_mb_at_start": round(at_start),
            "peak_mb_when_sent": round(sent),
            "peak_mb": round(_peak_mb(running.pid)),
            "text": text,
            "openmetrics": openmetrics,
        }


def _peak_mb(pid: int) -> float:
    """The most memory that a process has had."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/{pid}/status has no VmHWM")


def _scrapes(running: Running, accept: str) -> dict[str, float]:
    seconds = []
    size = 0
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        size = len(running.get("/metrics", accept).content)
        seconds.append(time.perf_counter() - started)
    return {
        "seconds": round(float(np.median(seconds)), 3),
        "seconds_worst": round(max(seconds), 3),
        "bytes": size,
    }


def _metric(text: str, name: str) -> float:
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} "))


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))

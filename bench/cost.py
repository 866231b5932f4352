"""The same work done with and without measuring, in turn, in; the ratio of their costs, with its interval, out.

Each engine does both, in an order that alternates: two processes of one engine differ by several per cent from each
other, whatever they run, which is more than what is to be measured. Without measuring no request is admitted, and all
of Introspan is in place and idle. A real collector takes what is exported. CPU-seconds are those of the whole engine
process, its exporter's thread included.
"""

import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from bench.collector import collector
from bench.engine import Engine, running
from demo.model import cache_folder, prepare

BATCHES = {1: 32, 16: 24}
"""Tokens decoded per request, by batch size."""

REPEATS = 6
_EVERYTHING = {
    "INTROSPAN_LAYERS": "all",
    "INTROSPAN_ATTENTION_LAYERS": "all",
    "INTROSPAN_TOKEN_STRIDE": "1",
    "INTROSPAN_ROW_BUDGET": "1000000",
}


# Any: measured numbers, as JSON.
def run() -> dict[str, Any]:
    """Ratios on/off of CPU-seconds per token with 95 % intervals, latencies, and time inside our code."""
    model = prepare(cache_folder(), lambda line: print(line, file=sys.stderr))
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, collector(Path(folder)) as collecting:
        environments = {
            "defaults": {"INTROSPAN_ENDPOINT": collecting.grpc},
            "everything": {"INTROSPAN_ENDPOINT": collecting.grpc} | _EVERYTHING,
        }
        for mode in ("eager", "compiled"):
            with ExitStack() as stack:
                engines = {
                    name: stack.enter_context(running(model, mode, env)) for name, env in environments.items()
                }
                result[mode] = {f"batch_{batch}": _compare(engines, batch, n) for batch, n in BATCHES.items()}
    return result


def _compare(engines: dict[str, Engine], batch: int, tokens: int) -> dict[str, Any]:
    result = {}
    for name, engine in engines.items():
        engine.work(batch, 8, 1)
        done: dict[int, list[dict[str, Any]]] = {0: [], 1: []}
        for repeat in range(REPEATS):
            for rate in (0, 1) if repeat % 2 == 0 else (1, 0):
                done[rate].append(engine.work(batch, tokens, rate))
        result[name] = _summary(done[1], done[0]) | {"idle": _summary(done[0], done[0])}
    return result


def _summary(work: list[dict[str, Any]], off: list[dict[str, Any]]) -> dict[str, Any]:
    cpu = np.array([each["cpu_seconds"] / each["tokens"] for each in work])
    cpu_off = np.array([each["cpu_seconds"] / each["tokens"] for each in off])
    steps = np.concatenate([each["steps"] for each in work]) * 1e3
    summary: dict[str, Any] = {
        "cpu_ms_per_token": float(np.median(cpu) * 1e3),
        "tokens_per_second": float(np.median([each["tokens"] / each["wall_seconds"] for each in work])),
        "latency_ms_p50": float(np.percentile(steps, 50)),
        # Of the couple of hundred steps here; bench.latency takes enough of them for the last per mille.
        "latency_ms_p99": float(np.percentile(steps, 99)),
    }
    if work is not off:
        ratios = np.log(cpu / cpu_off)
        centre, spread = ratios.mean(), stats.sem(ratios) * stats.t.ppf(0.975, len(ratios) - 1)
        summary |= {
            "cpu_ratio": float(np.exp(centre)),
            "cpu_ratio_low": float(np.exp(centre - spread)),
            "cpu_ratio_high": float(np.exp(centre + spread)),
            "ours_ms_per_step": float(
                np.median([each["ours_seconds"] / len(each["steps"]) * 1e3 for each in work])
            ),
        }
    return summary


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))

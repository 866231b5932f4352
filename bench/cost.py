"""The same work done with and without Introspan, in turn, in; the ratio of their costs, with its interval, out.

One engine without the plugin and one or two with it are loaded at the same time; they work one at a time, in an order
that alternates, so that whatever else the machine does hits all alike. A real collector takes what is exported.
CPU-seconds are those of the whole engine process, its exporter's thread included.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from scipy import stats

from bench.collector import collector
from demo.model import cache_folder, prepare

BATCHES = {1: 48, 16: 32}
"""Tokens decoded per request, by batch size."""

REPEATS = 12
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
    with tempfile.TemporaryDirectory() as folder, collector(Path(folder)) as running:
        environments = {
            "off": {"VLLM_PLUGINS": "none"},
            "defaults": {"INTROSPAN_ENDPOINT": running.grpc},
            "everything": {"INTROSPAN_ENDPOINT": running.grpc} | _EVERYTHING,
        }
        for mode in ("eager", "compiled"):
            with ExitStack() as stack:
                engines = {
                    name: stack.enter_context(_engine(model, mode, env)) for name, env in environments.items()
                }
                result[mode] = {f"batch_{batch}": _compare(engines, batch, n) for batch, n in BATCHES.items()}
    return result


@contextmanager
def _engine(model: Path, mode: str, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("INTROSPAN_", "OTEL_"))} | env
    # One thread a process: the spinning of idle OpenMP threads would be counted as work.
    environ["OMP_NUM_THREADS"] = "1"
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.cost_engine", model, mode],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        _answer(process)
        yield process
    finally:
        _pipe(process.stdin).close()
        process.wait(30)


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None, "the engine was started with pipes"
    return pipe


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    line = _pipe(process.stdout).readline()
    if not line:
        raise RuntimeError(f"the engine ended with {process.wait(30)}; its command was {process.args!r}")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _work(process: subprocess.Popen[str], batch: int, tokens: int) -> dict[str, Any]:
    work = _pipe(process.stdin)
    work.write(f"{batch} {tokens}\n")
    work.flush()
    return _answer(process)


def _compare(engines: dict[str, subprocess.Popen[str]], batch: int, tokens: int) -> dict[str, Any]:
    for engine in engines.values():
        _work(engine, batch, 8)
    done: dict[str, list[dict[str, Any]]] = {name: [] for name in engines}
    names = list(engines)
    for repeat in range(REPEATS):
        for name in names if repeat % 2 == 0 else reversed(names):
            done[name].append(_work(engines[name], batch, tokens))
    return {name: _summary(done[name], done["off"]) for name in names}


def _summary(work: list[dict[str, Any]], off: list[dict[str, Any]]) -> dict[str, Any]:
    cpu = np.array([each["cpu_seconds"] / each["tokens"] for each in work])
    cpu_off = np.array([each["cpu_seconds"] / each["tokens"] for each in off])
    steps = np.concatenate([each["steps"] for each in work]) * 1e3
    summary: dict[str, Any] = {
        "cpu_ms_per_token": float(np.median(cpu) * 1e3),
        "tokens_per_second": float(np.median([each["tokens"] / each["wall_seconds"] for each in work])),
        "latency_ms_p50": float(np.percentile(steps, 50)),
        "latency_ms_p99": float(np.percentile(steps, 99)),
        "latency_ms_p999": float(np.percentile(steps, 99.9)),
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

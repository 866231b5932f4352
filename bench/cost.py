"""The same work done with and without measuring, in turn, in; the ratio of their costs, with its interval, out.

Each engine does all of it, in every order: two processes of one engine differ by several per cent from each other,
whatever they run, which is more than what is to be measured. Without measuring (*idle*) no request is admitted, and all
of Introspan is in place; an eager engine does the work also without it (*unhooked*). A real collector takes what is
exported. CPU-seconds are those of the whole engine process, its exporter's thread included.
"""

import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from itertools import cycle, islice, permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bench.collector import collector
from bench.engine import Engine, Load, running
from demo.model import cache_folder, prepare

LOADS = {"batch_1": Load(1, 32), "batch_16": Load(16, 24), "batch_16_context_900": Load(16, 24, 900)}
KINDS = {"idle": (0, True), "measured": (1, True), "unhooked": (0, False)}
"""Share of requests that is measured, and whether Introspan is in the engine."""

REPEATS = {"defaults": 12, "everything": 6}
"""Runs of each kind: more where the end of the interval is held against a target."""

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
                kinds = [kind for kind in KINDS if kind != "unhooked" or mode == "eager"]
                result[mode] = {name: _compare(engines, load, kinds) for name, load in LOADS.items()}
    return result


def _compare(engines: dict[str, Engine], load: Load, kinds: list[str]) -> dict[str, Any]:
    result = {}
    for name, engine in engines.items():
        engine.work(replace(load, tokens=8), 1)
        done: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
        for order in islice(cycle(permutations(kinds)), REPEATS[name]):
            for kind in order:
                rate, hooked = KINDS[kind]
                done[kind].append(engine.work(load, rate, hooked=hooked))
        print(f"{load}, {name}", file=sys.stderr, flush=True)
        result[name] = _summary(done)
    return result


def _summary(done: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    measured = done["measured"]
    ours = [each["ours_seconds"] / len(each["steps"]) * 1e3 for each in measured]
    summary = _cost(measured) | _ratio("cpu_ratio", measured, done["idle"])
    summary |= {"ours_ms_per_step": float(np.median(ours)), "idle": _cost(done["idle"])}
    if "unhooked" in done:
        summary |= _ratio("cpu_ratio_to_unhooked", measured, done["unhooked"])
        summary["idle"] |= _ratio("cpu_ratio_to_unhooked", done["idle"], done["unhooked"])
    return summary


def _cost(work: list[dict[str, Any]]) -> dict[str, Any]:
    steps = np.concatenate([each["steps"] for each in work]) * 1e3
    return {
        "cpu_ms_per_token": float(np.median(_cpu_seconds_per_token(work)) * 1e3),
        "tokens_per_second": float(np.median([each["tokens"] / each["wall_seconds"] for each in work])),
        "latency_ms_p50": float(np.percentile(steps, 50)),
        # Of the couple of hundred steps here; bench.latency takes enough of them for the last per mille.
        "latency_ms_p99": float(np.percentile(steps, 99)),
    }


def _ratio(name: str, work: list[dict[str, Any]], base: list[dict[str, Any]]) -> dict[str, float]:
    """The mean ratio of paired runs, with its 95 % interval by Student's t of the logarithms."""
    ratios = np.log(_cpu_seconds_per_token(work) / _cpu_seconds_per_token(base))
    centre, spread = ratios.mean(), stats.sem(ratios) * stats.t.ppf(0.975, len(ratios) - 1)
    return {
        name: float(np.exp(centre)),
        f"{name}_low": float(np.exp(centre - spread)),
        f"{name}_high": float(np.exp(centre + spread)),
    }


def _cpu_seconds_per_token(work: list[dict[str, Any]]) -> NDArray[np.float64]:
    return np.array([each["cpu_seconds"] / each["tokens"] for each in work])


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))

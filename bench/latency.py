"""Steps that measure nothing, that measure, and that also export, in turn, in; their slowest compared out.

One engine decodes one request at a time, in blocks of tokens whose kind alternates within each round in a drawn order,
so that what else happens on the machine falls on every kind alike. Between the slowest steps of a few thousand,
intervals are wide: they come from drawing whole rounds again. CPU-seconds of the whole process, the exporter's thread
included, are compared beside: they say what a step was made to do where other programs decide when it was let.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.collector import collector
from bench.engine import Engine, Load, running
from demo.model import cache_folder, prepare

ROUNDS, BLOCK_STEPS = 40, 126
"""5,040 steps of each kind: five of them are beyond the 99.9th percentile."""

KINDS = {"idle": (0, False), "captured": (1, False), "exported": (1, True)}
"""Share of requests that is measured, and whether that is exported. Idle: all of Introspan is in place."""

_PERCENTILES = {"p50": 50.0, "p99": 99.0, "p999": 99.9}
_RATIOS = {"exported_to_idle": ("exported", "idle"), "exported_to_captured": ("exported", "captured")}
_RESAMPLES = 2_000
_Steps = dict[str, NDArray[np.float64]]


# Any: measured numbers, as JSON.
def run() -> dict[str, Any]:
    """Percentiles of the time between two tokens, and their ratios with 95 % intervals."""
    model = prepare(cache_folder(), lambda line: print(line, file=sys.stderr))
    with (
        tempfile.TemporaryDirectory() as folder,
        collector(Path(folder)) as collecting,
        running(model, "eager", {"INTROSPAN_ENDPOINT": collecting.grpc}) as engine,
    ):
        wall, cpu = _measure(engine, np.random.default_rng(5))
    return compare(wall, np.random.default_rng(6)) | {
        "cpu": compare(cpu, np.random.default_rng(7)),
        "steps_of_each_kind": ROUNDS * BLOCK_STEPS,
        "load_average_15_minutes": os.getloadavg()[2],
    }


def _measure(engine: Engine, order: np.random.Generator) -> tuple[_Steps, _Steps]:
    """Milliseconds of each step, by the clock and of CPU, [rounds, steps of a block], by kind."""
    engine.work(Load(1, BLOCK_STEPS), 1)
    wall, cpu = ({kind: np.empty((ROUNDS, BLOCK_STEPS)) for kind in KINDS} for _ in range(2))
    for round_ in range(ROUNDS):
        for kind in order.permutation(list(KINDS)).tolist():
            rate, export = KINDS[kind]
            # The first token comes out of the prompt, before the first step that is timed.
            done = engine.work(Load(1, BLOCK_STEPS + 1), rate, export=export)
            wall[kind][round_] = np.array(done["steps"]) * 1e3
            cpu[kind][round_] = np.array(done["steps_cpu"]) * 1e3
        print(f"round {round_ + 1} of {ROUNDS}", file=sys.stderr, flush=True)
    return wall, cpu


def compare(steps: _Steps, draws: np.random.Generator) -> dict[str, Any]:
    """Percentiles of each kind and ratios between kinds. steps: milliseconds, [rounds, steps of a block]."""
    rounds = len(next(iter(steps.values())))
    drawn = draws.integers(0, rounds, (_RESAMPLES, rounds))
    measured = {kind: _percentiles(of) for kind, of in steps.items()}
    resampled = {kind: np.stack([_percentiles(of[chosen]) for chosen in drawn]) for kind, of in steps.items()}
    result: dict[str, Any] = {
        kind: {f"ms_{name}": float(of[i]) for i, name in enumerate(_PERCENTILES)}
        for kind, of in measured.items()
    }
    for ratio, (upper, lower) in _RATIOS.items():
        low, high = np.percentile(resampled[upper] / resampled[lower], [2.5, 97.5], axis=0)
        result |= {
            f"{ratio}_{name}": {
                "ratio": float(measured[upper][i] / measured[lower][i]),
                "low": float(low[i]),
                "high": float(high[i]),
            }
            for i, name in enumerate(_PERCENTILES)
        }
    return result


def _percentiles(blocks: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.percentile(blocks, list(_PERCENTILES.values())), np.float64)


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))

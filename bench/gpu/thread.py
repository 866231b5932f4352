"""An engine that is measured, in; what our work takes of the model's thread and of the device, step by step, out."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu.cost import fitting
from bench.gpu.engines import ENDPOINT, EVERYTHING, Kind, serving
from bench.gpu.models import drawn
from bench.gpu.scale import Scale
from bench.gpu.waiting import lost

_LEVELS: dict[str, dict[str, str]] = {"defaults": {}, "everything": EVERYTHING}


def run(scale: Scale) -> dict[str, Any]:
    """By level and batch size: microseconds of the model's thread a step, and of the device a flush."""
    context = scale.contexts["512"]
    values: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = drawn(scale.models["1b"], Path(scratch, "model"))
        for level, env in _LEVELS.items():
            engine = fitting(list(scale.batches), context, scale.tokens, 0.8)
            with serving(Kind(folder, ENDPOINT | env, engine, rows=True, watch="times"), scale) as served:
                for batch in scale.batches:
                    served.work(
                        batch, context, scale.tokens, seed=0
                    )  # kernels are compiled, the self-checks over
                    before = served.watched(anew=True)["capture_seconds"]
                    worked = served.work(batch, context, scale.tokens, seed=1)
                    found, status = served.watched(anew=True), served.state()["status"]
                    rows = {"measured_rows": status["measured_rows"], "rows_lost": lost(status)}
                    values[f"{level}.batch_{batch}"] = summary(found, before, worked) | {
                        f"{name}_so_far": count for name, count in rows.items()
                    }
    return values


# Any: JSON.
def summary(found: dict[str, Any], before: float, worked: dict[str, Any]) -> dict[str, float]:
    """Of one piece of work; before: what capture had taken of the thread until then, in seconds."""
    ours, steps = found["capture_seconds"] - before, max(found["steps"], 1)
    return {
        "thread_us_per_step": ours / steps * 1e6,
        "share_of_thread": ours / worked["seconds"],
        "flushes": len(found["flush_seconds"]),
        "thread_us_per_flush": _middle(found["flush_seconds"]) * 1e6,
        "device_us_per_flush": _middle(found["device_seconds"]) * 1e6,
        "share_of_device": sum(found["device_seconds"]) / worked["seconds"],
    }


def _middle(seconds: list[float]) -> float:
    return float(np.median(seconds)) if seconds else 0.0

"""An engine whose graphs are on, measured, in; every line of ours that waits for the device while it serves, out."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from bench.gpu.cost import fitting
from bench.gpu.engines import ENDPOINT, EVERYTHING, Kind, serving
from bench.gpu.models import drawn
from bench.gpu.scale import Scale

_LEVELS: dict[str, dict[str, str]] = {"defaults": {}, "everything": EVERYTHING}


def run(scale: Scale) -> dict[str, Any]:
    """By level: waits but those of the first step's self-checks and while the engine is idle, and on which lines."""
    batch, context = min(16, max(scale.batches)), scale.contexts["512"]
    values: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = drawn(scale.models["1b"], Path(scratch, "model"))
        for level, env in _LEVELS.items():
            engine = fitting([batch], context, scale.tokens, 0.8)
            kind = Kind(folder, ENDPOINT | env, engine, rows=True, watch="waits")
            with serving(kind, scale) as served:
                for seed in range(scale.repeats):
                    served.work(batch, context, scale.tokens, seed)
                found, state = served.watched(), served.state()
            values[level] = summary(found) | {
                "measured_rows": state["status"]["measured_rows"],
                "rows_lost": lost(state["status"]),
                "signals_off": len(state["status"]["disabled"]),
                "graphs": state["graphs"],
            }
    return values


# Any: JSON, as below.
def lost(status: dict[str, Any]) -> int:
    """Rows that were chosen or measured, and of which nothing comes, but those of tokens that nobody got."""
    reasons: dict[str, int] = status["dropped_rows"]
    return sum(count for reason, count in reasons.items() if reason != "not_delivered")


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """How often, and where most."""
    return {
        "waits": sum(found["later"].values()),
        "where": ", ".join(f"{line} {count}×" for line, count in Counter(found["later"]).most_common(12))
        or "nowhere",
        "waits_of_self_checks": sum(found["first"].values()),
        "waits_while_idle": sum(found["idle"].values()),
        "flushes": len(found["flush_seconds"]),
        "steps": found["steps"],
    }

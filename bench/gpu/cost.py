"""Two engines of one model, one with Introspan and one without it, in; the ratio of their times, with intervals, out.

Both live on the same GPU and do the same work by turns, in an order that alternates, so that what else happens to the
machine falls on both. The other one does nothing meanwhile. A real collector takes what is exported.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.collector import collector
from bench.gpu.engines import ABSENT, EVERYTHING, Kind, Served, serving
from bench.gpu.interval import paired_ratio
from bench.gpu.models import DRAWN, drawn
from bench.gpu.scale import Scale

_BLOCK_TOKENS = 16
_MOST_TOKENS = 16 * 8192
"""Of keys and values in one engine, beside another one's: 18 GB of Llama-3-8B."""


def run(scale: Scale, model: str, context: str, level: str) -> dict[str, Any]:
    """By batch size: time per output token and to the first, and tokens a second; and the memory of both."""
    length = scale.contexts[context]
    batches = [batch for batch in scale.batches if batch * length <= _MOST_TOKENS]
    levels = {"defaults": {}, "everything": EVERYTHING}
    with tempfile.TemporaryDirectory() as scratch, collector(Path(scratch)) as collecting:
        folder = drawn(scale.models[model], Path(scratch, "model"))
        engine = fitting(batches, length, scale.tokens, 0.45)
        env = {"INTROSPAN_ENDPOINT": collecting.grpc} | levels[level]
        with (
            serving(Kind(folder, ABSENT, engine), scale) as off,
            serving(Kind(folder, env, engine), scale) as on,
        ):
            before = {"off": off.state(), "on": on.state()}
            values: dict[str, Any] = {
                f"batch_{batch}": compare({"off": off, "on": on}, batch, length, scale) for batch in batches
            }
            memory = {name: one.state()["memory"] for name, one in (("off", off), ("on", on))}
    return values | {
        "memory": {
            "off_mib": memory["off"]["allocated"] / 2**20,
            "more_mib": (memory["on"]["allocated"] - memory["off"]["allocated"]) / 2**20,
            "more_reserved_mib": (memory["on"]["reserved"] - memory["off"]["reserved"]) / 2**20,
        },
        "graphs": before["on"]["graphs"],
        "runner": before["on"]["runner"],
        "asynchronous": str(before["on"]["asynchronous"]),
    }


def fitting(batches: list[int], context: int, tokens: int, share: float) -> dict[str, Any]:
    """Options of an engine that holds the largest batch, and as much memory with Introspan as without."""
    length = context + tokens + _BLOCK_TOKENS
    return {
        **DRAWN,
        "max_model_len": length,
        "max_num_seqs": max(batches),
        "enable_prefix_caching": False,
        "gpu_memory_utilization": share,
        "num_gpu_blocks_override": max(batches) * (length // _BLOCK_TOKENS + 2) + 8,
    }


def compare(engines: dict[str, Served], batch: int, context: int, scale: Scale) -> dict[str, Any]:
    """Each engine's times, and the ratios of every other one to the first of them."""
    names = list(engines)
    done: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for engine in engines.values():
        engine.work(batch, context, scale.tokens, seed=0)
    for repeat in range(scale.repeats):
        cycle, turn = divmod(repeat, len(names))
        order = [*names[turn:], *names[:turn]]
        for name in reversed(order) if cycle % 2 else order:
            done[name].append(engines[name].work(batch, context, scale.tokens, seed=repeat + 1))
    base, *others = names
    values: dict[str, Any] = {name: _summary(work) for name, work in done.items()}
    for name in others:
        ratios: dict[str, float] = {}
        for what, key in (("tpot", "tpot_ratio"), ("ttft", "ttft_ratio")):
            ratios |= paired_ratio(key, _middle(done[name], what), _middle(done[base], what))
        values |= ratios if len(others) == 1 else {f"{name}_to_{base}": ratios}
    return values


def _summary(work: list[dict[str, Any]]) -> dict[str, float]:
    return {
        "tpot_ms": float(np.median(_middle(work, "tpot")) * 1e3),
        "ttft_ms": float(np.median(_middle(work, "ttft")) * 1e3),
        "tokens_per_second": float(np.median([each["tokens"] / each["seconds"] for each in work])),
    }


def _middle(work: list[dict[str, Any]], what: str) -> list[float]:
    """The middle request's seconds, by run."""
    return [float(np.median(each[what])) for each in work]

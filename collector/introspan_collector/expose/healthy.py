"""A model and adapter in, what each signal is in its healthy requests out: kinds of rows mixed as they are served."""

import math
from collections import Counter

from introspan_collector.expose.sources import Answer, Sources


def healthy(sources: Sources, model: str, adapter: str) -> dict[tuple[str, int], Answer]:
    """Mean and standard deviation of one value, by signal and layer; empty without a reference.

    Statistics of traffic have prompt rows and decoded rows together, so the reference's are mixed in the proportion
    in which they come.
    """
    share = _segments(sources, model)
    by_key: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    for one in sources.detection.healthy(model, adapter):
        weight = float(share[one["kind"]]) or 1.0
        by_key.setdefault((one["signal"], one["layer"]), []).append((weight, one["mean"], one["stddev"]))
    return {key: _mixed(parts) for key, parts in by_key.items()}


def _segments(sources: Sources, model: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for worker in sources.aggregates.workers():
        if worker.origin.model == model:
            counts.update(dict(worker.segments))
    return counts


def _mixed(parts: list[tuple[float, float, float]]) -> Answer:
    total = sum(weight for weight, _, _ in parts)
    mean = sum(weight * of for weight, of, _ in parts) / total
    second = sum(weight * (spread**2 + (of - mean) ** 2) for weight, of, spread in parts) / total
    return {"mean": mean, "stddev": math.sqrt(second)}

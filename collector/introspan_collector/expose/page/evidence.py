"""Levels of evidence in, bars beside their threshold out."""

from introspan_collector.expose.sources import Answer

LOWEST, HIGHEST = -6.0, 2.0
"""log₁₀ of evidence over threshold at the ends of a bar; what is beyond is at the end."""

_ALL = "all"
_WORDS = {
    "all": "all evidence together",
    "sampler": "sampler: drawn tokens against their distribution",
    "canary": "canary: known questions against their baseline",
    "bank": "bank: each signal and layer against the reference",
    "extremes": "extremes: the most unusual requests",
    "drift": "drift: where the residual stream is, by class",
    "classes": "classes: the mixture of traffic",
    "replicas": "replicas: one against the others",
    "repetition": "repetition: answers that loop",
    "reprefill": "reprefill: requests computed twice",
}


def levels(detection: Answer) -> dict[tuple[str, str], list[Answer]]:
    """By model and adapter: a bar of each copy of the test for all evidence together, then for each detector."""
    found: dict[tuple[str, str], list[Answer]] = {}
    for one in detection["levels"]:
        found.setdefault((one["model"], one["adapter"]), []).append(
            {
                "detector": one["detector"],
                "words": _WORDS.get(one["detector"], one["detector"]),
                "test": one["copy"],
                "log10": one["log10"],
                "share": _share(one["log10"]),
                "is_over": one["log10"] is not None and one["log10"] >= 0,
            }
        )
    for bars in found.values():
        bars.sort(key=lambda bar: (bar["detector"] != _ALL, bar["detector"], bar["test"]))
    return found


def _share(log10: float | None) -> float:
    if log10 is None:
        return 0.0
    return (min(max(log10, LOWEST), HIGHEST) - LOWEST) / (HIGHEST - LOWEST)


THRESHOLD_SHARE = _share(0.0)
"""Where on a bar the threshold is."""

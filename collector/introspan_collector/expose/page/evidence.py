"""Levels of evidence in, bars beside their threshold out."""

from introspan_collector.expose.sources import Answer

LOWEST, HIGHEST = -6.0, 2.0
"""log₁₀ of evidence over threshold at the ends of a bar; what is beyond is at the end."""

_ALL = "all"
_WORDS = {
    _ALL: "what the threshold is for",
    "sampler": "drawn tokens against their distribution",
    "canary": "known questions against their baseline",
    "bank": "each signal and layer against the reference",
    "extremes": "the most unusual requests",
    "drift": "where the residual stream is, by class",
    "classes": "the mixture of traffic",
    "replicas": "one against the others",
    "repetition": "answers that loop",
    "reprefill": "requests computed twice",
}


def levels(detection: Answer) -> dict[tuple[str, str], list[Answer]]:
    """By model and adapter: for all evidence together, then for each detector, a bar of each copy of the test."""
    found: dict[tuple[str, str], dict[str, Answer]] = {}
    for one in detection["levels"]:
        detector = one["detector"]
        of_subject = found.setdefault((one["model"], one["adapter"]), {})
        row = of_subject.setdefault(
            detector, {"detector": detector, "words": _WORDS.get(detector, ""), "tests": {}}
        )
        log10 = one["log10"]
        is_over = log10 is not None and log10 >= 0
        row["tests"][one["copy"]] = {"log10": log10, "share": share(log10), "is_over": is_over}
    return {
        subject: sorted(rows.values(), key=lambda row: (row["detector"] != _ALL, row["detector"]))
        for subject, rows in found.items()
    }


def share(log10: float | None) -> float:
    """How much of a bar is full."""
    if log10 is None:
        return 0.0
    return (min(max(log10, LOWEST), HIGHEST) - LOWEST) / (HIGHEST - LOWEST)


THRESHOLD_SHARE = share(0.0)
"""Where on a bar the threshold is."""

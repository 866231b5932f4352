"""Canaries in, how each model's answers compare with its baseline out."""

from introspan_collector.expose.page.fleet import canary_state
from introspan_collector.expose.parameters import Parameters
from introspan_collector.expose.sources import Answer, Sources


def content(sources: Sources, asked: Parameters) -> Answer:
    """Every model's canary, those that deviate first."""
    order = ("deviates", "equivalent", "gathering", "same")
    found = [
        {**one, "state": canary_state(one)}
        for one in sources.detection.canaries()
        if asked.text("model") in (None, one["model"])
    ]
    return {
        "title": "Canary",
        "canaries": sorted(found, key=lambda one: (order.index(one["state"]), one["model"])),
        "endpoints": sources.endpoints(),
        "only": asked.text("model") or "",
    }

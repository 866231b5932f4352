"""Canaries in, how each model's answers compare with its baseline out."""

from introspan_collector.expose.page.fleet import canary_state
from introspan_collector.expose.parameters import Parameters
from introspan_collector.expose.sources import Answer, Sources


def content(sources: Sources, asked: Parameters) -> Answer:
    """Every model's canary, those that deviate first."""
    order = ("deviating", "silent", "equivalent", "gathering", "still")
    found = [
        {**one, "state": canary_state(one)}
        for one in sources.detection.canaries()
        if asked.text("model") in (None, one["model"])
    ]
    heard = [one for one in found if one["state"] != "absent"]
    return {
        "title": "Canary",
        "canaries": sorted(heard, key=lambda one: (order.index(one["state"]), one["model"])),
        "without": [one["model"] for one in found if one["state"] == "absent"],
        "endpoints": sources.endpoints(),
        "only": asked.text("model") or "",
    }

"""A model and a range of time in, how far its requests were from the reference, beside what chance explains, out."""

import time
from collections.abc import Callable

from starlette.routing import Route

from introspan_collector.expose.heatmap import required_model
from introspan_collector.expose.parameters import Parameters
from introspan_collector.expose.questions import route
from introspan_collector.expose.sources import Answer, Sources

MOST_STEPS = 240

_POINT = ("time", "distance", "threshold")
_LONGEST_SECONDS = 366 * 86_400.0
_DIGITS = 4


def routes(sources: Sources, clock: Callable[[], float] = time.time) -> list[Route]:
    """The route of drift."""
    known = ("model", "adapter", "from", "to")
    return [route(sources, "drift", known, lambda where, asked: _drift(where, asked, clock()))]


def _drift(sources: Sources, asked: Parameters, now: float) -> Answer:
    """At most 240 points of each kind of row: of those that fall together the one farthest beyond chance."""
    model, adapter = required_model(asked), asked.text("adapter") or ""
    end = asked.number("to", now, 0.0, now + 86_400.0)
    start = asked.number("from", end - 3600.0, end - _LONGEST_SECONDS, end)
    step = max((end - start) / MOST_STEPS, 1.0)
    return {
        "model": model,
        "adapter": adapter,
        "from": start,
        "to": end,
        "columns": _POINT,
        "kinds": [
            {"kind": one["kind"], "points": _thinned(one["points"], start, end, step)}
            for one in sources.detection.course(model, adapter)
        ],
    }


_Point = tuple[float, float, float]


def _thinned(points: list[_Point], start: float, end: float, step: float) -> list[_Point]:
    farthest: dict[int, _Point] = {}
    for at, distance, threshold in points:
        if not start <= at < end:
            continue
        point = (at, round(distance, _DIGITS), round(threshold, _DIGITS))
        known = farthest.setdefault(int((at - start) // step), point)
        if distance / threshold > known[1] / known[2]:
            farthest[int((at - start) // step)] = point
    return [farthest[number] for number in sorted(farthest)]

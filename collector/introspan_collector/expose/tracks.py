"""A question about a signal over time in, points by step out: recent slots, and rollups for what is older."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from introspan_collector.expose.parameters import ParameterError, Parameters
from introspan_collector.expose.sources import Sources
from introspan_collector.model import SeriesKey
from introspan_collector.moments import Moments
from introspan_collector.view import Track

PARAMETERS = ("signal", "model", "replica", "adapter", "layer", "from", "to", "step")
POINT = ("time", "mean", "count", "stddev", "min", "max")

# The aggregates keep 120 s; the archive writes a rollup within 30 s. Between the two, either would do.
_RECENT_SECONDS = 60.0
_MINUTE_SECONDS = 60.0
_LONGEST_SECONDS = 366 * 86_400.0
_SERIES = 1_000
_POINTS = 11_000


@dataclass(frozen=True, slots=True)
class Question:
    """Which series, between which Unix times, in which steps."""

    signal: str
    model: str | None
    replica: str | None
    adapter: str | None
    layer: int | None
    start: float
    end: float
    step: float

    def wants(self, key: SeriesKey) -> bool:
        """Whether a series is asked for."""
        asked = (self.signal, self.model, self.replica, self.adapter, self.layer)
        has = (key.signal, key.model, key.replica, key.adapter, key.layer)
        return all(a is None or a == b for a, b in zip(asked, has, strict=True))


def question(parameters: Parameters, clock: Callable[[], float] = time.time) -> Question:
    """The question that parameters ask. Raises ParameterError."""
    now = clock()
    signal = parameters.signal("signal")
    if signal is None:
        raise ParameterError("signal", "", "is required: the name of a signal, see /api/v1/signals")
    end = parameters.number("to", now, 0.0, now + 86_400.0)
    start = parameters.number("from", end - 300.0, end - _LONGEST_SECONDS, end)
    finest = 1.0 if start >= _boundary(now) else _MINUTE_SECONDS
    step = parameters.number("step", max(finest, 10.0), finest, 86_400.0)
    if (end - start) / step > _POINTS:
        raise ParameterError(
            "step", f"{step:g}", f"must be at least {(end - start) / _POINTS:.0f} for this range"
        )
    layer = None if parameters.text("layer") is None else parameters.whole("layer", 0, -1, 10_000)
    text = parameters.text
    return Question(signal, text("model"), text("replica"), text("adapter"), layer, start, end, step)


# Any: JSON.
def answer(sources: Sources, asked: Question, clock: Callable[[], float] = time.time) -> dict[str, Any]:
    """Points by step of every series asked for, at most 1,000 of them."""
    by_key = found(sources, asked, clock())
    shown = sorted(by_key)[:_SERIES]
    return {
        "signal": asked.signal,
        "from": asked.start,
        "to": asked.end,
        "step_seconds": asked.step,
        "columns": POINT,
        "truncated": len(by_key) > _SERIES,
        "series": [
            {
                "model": key.model,
                "replica": key.replica,
                "adapter": key.adapter,
                "layer": layer_or_none(key),
                "points": _points(by_key[key], asked.step),
            }
            for key in shown
        ],
    }


def found(sources: Sources, asked: Question, now: float) -> dict[SeriesKey, list[Track]]:
    """What the slots and, before them, the rollups have of every series asked for."""
    boundary = _boundary(now)
    wanted = (asked.signal, asked.model, asked.replica, asked.adapter, asked.layer)
    recent = sources.aggregates.tracks(asked.wants, _SERIES + 1) if asked.end > boundary else []
    older = (
        sources.archive.tracks(wanted, asked.start, min(asked.end, boundary), _minutes(asked.step))
        if asked.start < boundary
        else []
    )
    by_key: dict[SeriesKey, list[Track]] = {}
    for track, low, high in (
        *((track, -math.inf, boundary) for track in older),
        *((track, max(asked.start, boundary), asked.end) for track in recent),
    ):
        inside = (track.starts >= low) & (track.starts < high)
        if inside.any():
            by_key.setdefault(track.key, []).append(
                Track(track.key, track.starts[inside], track.moments.at(inside))
            )
    return by_key


def layer_or_none(key: SeriesKey) -> int | None:
    """The layer of a series; None for a signal without layers."""
    return key.layer if key.layer >= 0 else None


def _boundary(now: float) -> float:
    """The start of the first whole minute that the slots still cover."""
    return (now - _RECENT_SECONDS) // _MINUTE_SECONDS * _MINUTE_SECONDS


def _minutes(step: float) -> int:
    """Seconds of the largest number of whole minutes that divides a step: points of less are asked for in vain."""
    return int(step) if step % _MINUTE_SECONDS == 0 else int(_MINUTE_SECONDS)


def _points(tracks: list[Track], step: float) -> list[tuple[float, ...]]:
    number = np.concatenate([track.starts for track in tracks]) // step
    steps, group = np.unique(number, return_inverse=True)
    names = Moments.__slots__
    together = Moments(
        *(np.concatenate([getattr(track.moments, name) for track in tracks]) for name in names)
    )
    sets = together.grouped(group, len(steps))
    stddev = np.sqrt(sets.m2 / sets.weight)
    columns = (steps * step, sets.mean, sets.count, stddev, sets.low, sets.high)
    return list(zip(*(column.tolist() for column in columns), strict=True))

"""A signal and a range of time in, its mean by layer and step out, beside what it is in healthy requests."""

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from starlette.routing import Route

from introspan_collector.expose.healthy import healthy
from introspan_collector.expose.parameters import ParameterError, Parameters
from introspan_collector.expose.questions import route
from introspan_collector.expose.sources import Answer, Sources
from introspan_collector.expose.tracks import Question, found
from introspan_collector.moments import Moments
from introspan_collector.view import Track
from introspan_wire.signals import CATALOGUE

MOST_COLUMNS = 240

_MOST_LAYERS = 256
_DIGITS = 5
_STEPS = (60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 172_800)
_LONGEST_SECONDS = 366 * 86_400.0
_PARAMETERS = ("signal", "model", "replica", "adapter", "from", "to")


def routes(sources: Sources, clock: Callable[[], float] = time.time) -> list[Route]:
    """The routes of heatmaps, and of what they are compared with."""
    return [
        route(sources, "heatmap", _PARAMETERS, lambda where, asked: _heatmap(where, asked, clock())),
        route(sources, "references/values", ("model", "adapter"), _values),
    ]


def required_model(asked: Parameters) -> str:
    """The model that is asked about. Raises ParameterError."""
    model = asked.text("model")
    if not model:
        raise ParameterError("model", "", "is required: one of GET /api/v1/models")
    return model


def _values(sources: Sources, asked: Parameters) -> Answer:
    model, adapter = required_model(asked), asked.text("adapter") or ""
    return {"model": model, "adapter": adapter, "values": sources.detection.healthy(model, adapter)}


def _heatmap(sources: Sources, asked: Parameters, now: float) -> Answer:
    """Replicas together; a cell is None where nothing was measured."""
    wanted = _question(asked, now)
    model, adapter = wanted.model or "", wanted.adapter or ""
    by_layer: dict[int, list[Track]] = {}
    for key, tracks in found(sources, wanted, now).items():
        by_layer.setdefault(key.layer, []).extend(tracks)
    layers = sorted(by_layer)[:_MOST_LAYERS]
    first, end = int(wanted.start // wanted.step), math.ceil(wanted.end / wanted.step)
    sets = _cells([by_layer[layer] for layer in layers], first, end - first, wanted.step)
    known = healthy(sources, model, adapter)
    return {
        "signal": wanted.signal,
        "unit": CATALOGUE[wanted.signal].unit,
        "model": model,
        "adapter": adapter,
        "from": wanted.start,
        "to": wanted.end,
        "step_seconds": wanted.step,
        "times": [number * wanted.step for number in range(first, end)],
        "layers": [layer if layer >= 0 else None for layer in layers],
        "mean": shortened(np.where(sets.count > 0, sets.mean, np.nan))
        .reshape(len(layers), end - first)
        .tolist(),
        "healthy": [known.get((wanted.signal, layer)) for layer in layers],
    }


def _question(asked: Parameters, now: float) -> Question:
    signal = asked.signal("signal")
    if signal is None:
        raise ParameterError("signal", "", "is required: the name of a signal, see /api/v1/signals")
    end = asked.number("to", now, 0.0, now + 86_400.0)
    start = asked.number("from", end - 3600.0, end - _LONGEST_SECONDS, end)
    step = next(step for step in _STEPS if (end - start) / step <= MOST_COLUMNS)
    return Question(
        signal,
        required_model(asked),
        asked.text("replica"),
        asked.text("adapter") or "",
        None,
        start,
        end,
        float(step),
    )


def _cells(rows: Sequence[Sequence[Track]], first: int, columns: int, step: float) -> Moments:
    """What the tracks of each row have in each step: [rows · columns]."""
    tracks = [(row, track) for row, of_row in enumerate(rows) for track in of_row]
    if not tracks:
        return Moments.empty(0)
    cell = np.concatenate(
        [
            row * columns + np.clip(track.starts // step - first, 0, columns - 1).astype(np.intp)
            for row, track in tracks
        ]
    )
    together = Moments(
        *(np.concatenate([getattr(track.moments, name) for _, track in tracks]) for name in Moments.__slots__)
    )
    return together.grouped(cell, len(rows) * columns)


def shortened(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values to five digits of the largest: thousands of them are sent, and nobody sees more."""
    largest = np.abs(values[np.isfinite(values)]).max(initial=0.0)
    return values if largest == 0 else np.round(values, _DIGITS - 1 - math.floor(math.log10(largest)))

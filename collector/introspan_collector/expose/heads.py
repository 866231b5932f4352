"""A signal that heads have in, its mean by layer and head over the newest segments out."""

import numpy as np
from starlette.routing import Route

from introspan_collector.expose.heatmap import required_model, shortened
from introspan_collector.expose.parameters import ParameterError, Parameters
from introspan_collector.expose.questions import route
from introspan_collector.expose.sources import Answer, Sources
from introspan_collector.view import Stored
from introspan_wire.signals import CATALOGUE, Axis, Kind

_DEFAULT_SEGMENTS = 200
_MOST_SEGMENTS = 1_000
_KINDS = ("prompt", "decoded")
_PARAMETERS = ("signal", "model", "replica", "adapter", "kind", "limit")


def routes(sources: Sources) -> list[Route]:
    """The route of heads."""
    return [route(sources, "heads", _PARAMETERS, _heads)]


def _heads(sources: Sources, asked: Parameters) -> Answer:
    """Statistics have no heads: they are read from the newest segments of the archive."""
    model, signal, kind = required_model(asked), _signal(asked), asked.text("kind") or "decoded"
    if kind not in _KINDS:
        raise ParameterError("kind", kind, f"must be one of {', '.join(_KINDS)}")
    limit = asked.whole("limit", _DEFAULT_SEGMENTS, 1, _MOST_SEGMENTS)
    found = sources.archive.newest(model, asked.text("replica"), asked.text("adapter"), Kind(kind), limit)
    places, means = _means(found, signal)
    layers, heads = (sorted({place[axis] for place in places}) for axis in (0, 1))
    grid = np.full((len(layers), len(heads)), np.nan)
    for (layer, head), mean in zip(places, means, strict=True):
        grid[layers.index(layer), heads.index(head)] = mean
    times = [float(stored.table.time_unix_nano[i]) / 1e9 for stored in found for i in (0, -1)]
    return {
        "signal": signal,
        "unit": CATALOGUE[signal].unit,
        "model": model,
        "kind": kind,
        "segments": sum(len(stored.table) for stored in found),
        "from": min(times, default=None),
        "to": max(times, default=None),
        "layers": layers,
        "heads": heads,
        "mean": shortened(grid).tolist(),
    }


def _signal(asked: Parameters) -> str:
    signal = asked.signal("signal") or "attention.entropy"
    if Axis.HEAD not in CATALOGUE[signal].axes:
        of_heads = [one.name for one in CATALOGUE.values() if Axis.HEAD in one.axes]
        raise ParameterError("signal", signal, f"must be one that heads have: {', '.join(of_heads)}")
    return signal


def _means(found: list[Stored], signal: str) -> tuple[list[tuple[int, int]], list[float]]:
    """Layer and head of each column, and the mean of what is finite in it over all segments."""
    columns = [
        (one.layer, one.head) for of in found for one in of.table.schema.columns if one.signal == signal
    ]
    places = {place: number for number, place in enumerate(dict.fromkeys(columns))}
    total, count = np.zeros((2, len(places)))
    for stored in found:
        mine = [i for i, one in enumerate(stored.table.schema.columns) if one.signal == signal]
        at = [places[stored.table.schema.columns[i][2:4]] for i in mine]
        values = stored.table.values[:, mine].astype(np.float64)
        known = np.isfinite(values)
        total[at] += np.where(known, values, 0.0).sum(axis=0)
        count[at] += known.sum(axis=0)
    return list(places), np.where(count > 0, total / np.maximum(count, 1), np.nan).tolist()

"""Requests in, evidence out that needs no reference: what a right sampler and finite numbers can never show.

`sampler.pit` is uniform on [0, 1] given the past if the sampler is right, whatever the traffic is: so the bounds are
exact. A greedy token that is not an arg-max, and a value that is not a number, cannot happen: their bound is 0.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.sequential.evidence import Evidence, Stream
from introspan_wire.codec import Schema, SegmentTable
from introspan_wire.signals import Statistic

PIT = "sampler.pit"
IMPOSSIBLE = {
    "sampler.greedy_mismatch": "sampler",
    "output.nonfinite": "nonfinite",
    "residual.nonfinite": "nonfinite",
}
"""Signals that are zero while all is well, and the detector whose evidence they are."""

_TAIL = 0.05
_SIDES = ("low", "high", "up", "down")
_BOUND = np.array([_TAIL, _TAIL, 0.5, 0.5])


def uniformity(
    table: SegmentTable, rows: NDArray[np.intp], model: str, replica: str, adapter: str
) -> Evidence:
    """X = 1{U < .05}, 1{U > .95}, U and 1 − U of the first token that was measured of each segment of a table.

    All segments count, and need no clusters: each U is uniform whatever was drawn before. But a segment ends where
    an end of text was drawn, by one of those same U. Which token is the first is known before; how many come is not,
    so a mean over those that came, or a choice among them, deviates in a healthy server.
    """
    place = _column(table.schema)
    u = np.full(len(rows), np.nan) if place is None else table.values[rows, place].astype(np.float64)
    tails = [np.where(np.isnan(u), np.nan, beyond) for beyond in (u < _TAIL, u > 1 - _TAIL)]
    x = np.stack([*tails, u, 1 - u], axis=1)
    # float32 may round a sum past 1.
    return Evidence(_streams(model, replica, adapter), _BOUND, np.clip(x, 0.0, 1.0), table.cluster_key[rows])


@lru_cache(maxsize=1024)
def _streams(model: str, replica: str, adapter: str) -> tuple[Stream, ...]:
    return tuple(Stream(model, replica, adapter, "sampler", "", PIT, -1, side) for side in _SIDES)


@lru_cache(maxsize=256)
def _column(schema: Schema) -> int | None:
    """Place of the first token's value."""
    place = {column.statistic: i for i, column in enumerate(schema.columns) if column.signal == PIT}
    return place.get(Statistic.FIRST, place.get(Statistic.LAST))


def impossible(
    table: SegmentTable, rows: NDArray[np.intp], model: str, replica: str, adapter: str
) -> list[tuple[Stream, int]]:
    """Streams of signals that should be zero and are not, each with a row of the table that shows it.

    Every segment counts: what cannot be needs no independence.
    """
    places = _zero_columns(table.schema)
    moved = table.values[np.ix_(rows, places)] > 0
    found = []
    for column in np.flatnonzero(moved.any(axis=0)).tolist():
        about = table.schema.columns[places[column]]
        who = (model, replica, adapter, IMPOSSIBLE[about.signal])
        stream = Stream(*who, table.schema.kind.value, about.signal, about.layer, "any")
        found.append((stream, int(rows[moved[:, column].argmax()])))
    return found


@lru_cache(maxsize=256)
def _zero_columns(schema: Schema) -> NDArray[np.intp]:
    """Places of the signals that should be zero."""
    places = [i for i, column in enumerate(schema.columns) if column.signal in IMPOSSIBLE]
    return np.array(places, np.intp)

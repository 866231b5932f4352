"""Requests in, evidence out that needs no reference: what a right sampler and finite numbers can never show.

`sampler.pit` is uniform on [0, 1] given the past if the sampler is right, whatever the traffic is: so the bounds are
exact. A greedy token that is not an arg-max, and a value that is not a number, cannot happen: their bound is 0.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.evidence import Evidence, Stream
from introspan_collector.detect.sample import Sample
from introspan_wire.codec import Schema, SegmentTable
from introspan_wire.signals import SEGMENT_TOKENS, Statistic

PIT = "sampler.pit"
IMPOSSIBLE = {
    "sampler.greedy_mismatch": "sampler",
    "output.nonfinite": "nonfinite",
    "residual.nonfinite": "nonfinite",
}
"""Signals that are zero while all is well, and the detector whose evidence they are."""

_TAIL = 0.05
_SIDES = ("low", "high", "up", "down")
_TOKENS = np.array(SEGMENT_TOKENS, np.float64)
_BOUND = np.array([_TAIL, _TAIL, 0.5, 0.5])


def uniformity(
    table: SegmentTable, rows: NDArray[np.intp], model: str, replica: str, adapter: str
) -> Evidence:
    """X = 1{U < .05}, 1{U > .95}, U and 1 − U of one token of each segment of a table: of all, where all were measured.

    All segments count, and need no clusters: each U is uniform whatever was drawn before. But a segment ends where
    an end of text was drawn, by one of those same U: so the token is the first that was measured, and a mean over k of
    the K tokens that the segment might have had is weighed by k/K. Any of those that came, or their plain mean, would
    deviate in a healthy server, whose answers end when likely tokens are drawn.
    """
    one, mean = _columns(table.schema)
    nothing = np.full(len(rows), np.nan)
    u = nothing if one is None else table.values[rows, one].astype(np.float64)
    tails = [np.where(np.isnan(u), np.nan, beyond) for beyond in (u < _TAIL, u > 1 - _TAIL)]
    level = u
    if mean is not None:
        tokens = table.token_count[rows].astype(np.float64)
        planned = _TOKENS[np.clip(table.segment_index[rows], 1, len(_TOKENS)).astype(np.intp) - 1]
        weighed = 0.5 + (table.values[rows, mean] - 0.5) * (tokens / planned)
        level = np.where(table.measured_count[rows] == table.token_count[rows], weighed, u)
    x = np.stack([*tails, level, 1 - level], axis=1)
    # float32 may round a mean past 1.
    return Evidence(_streams(model, replica, adapter), _BOUND, np.clip(x, 0.0, 1.0), table.cluster_key[rows])


@lru_cache(maxsize=1024)
def _streams(model: str, replica: str, adapter: str) -> tuple[Stream, ...]:
    return tuple(Stream(model, replica, adapter, "sampler", "", PIT, -1, side) for side in _SIDES)


@lru_cache(maxsize=256)
def _columns(schema: Schema) -> tuple[int | None, int | None]:
    """Places of one token's value, and of the mean over a decoded segment's."""
    place = {column.statistic: i for i, column in enumerate(schema.columns) if column.signal == PIT}
    return place.get(Statistic.FIRST, place.get(Statistic.LAST)), place.get(Statistic.MEAN)


def impossible(sample: Sample, model: str, replica: str, adapter: str) -> list[tuple[Stream, int]]:
    """Streams of signals that should be zero and are not, each with a row of the sample that shows it."""
    moved = sample.counts > 0
    found = []
    for column in np.flatnonzero(moved.any(axis=0)).tolist():
        signal, layer = sample.count_names[column]
        if signal in IMPOSSIBLE:
            stream = Stream(
                model, replica, adapter, IMPOSSIBLE[signal], sample.kind.value, signal, layer, "any"
            )
            found.append((stream, int(moved[:, column].argmax())))
    return found

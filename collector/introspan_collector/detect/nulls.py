"""Requests in, evidence out that needs no reference: what a right sampler and finite numbers can never show.

`sampler.pit` is uniform on [0, 1] given the past if the sampler is right, whatever the traffic is: so the bounds are
exact. A greedy token that is not an arg-max, and a value that is not a number, cannot happen: their bound is 0.
"""

import numpy as np

from introspan_collector.detect.evidence import Evidence, Stream
from introspan_collector.detect.sample import Sample

PIT = "sampler.pit"
IMPOSSIBLE = {
    "sampler.greedy_mismatch": "sampler",
    "output.nonfinite": "nonfinite",
    "residual.nonfinite": "nonfinite",
}
"""Signals that are zero while all is well, and the detector whose evidence they are."""

_TAIL = 0.05
_SIDES = ("low", "high", "up", "down")


def uniformity(sample: Sample, model: str, replica: str, adapter: str) -> Evidence:
    """X = 1{U < .05}, 1{U > .95}, U, 1 − U of each request's probability integral transform."""
    u = sample.pit.astype(np.float64)
    unknown = np.isnan(u)
    x = np.stack([u < _TAIL, u > 1 - _TAIL, u, 1 - u], axis=1).astype(np.float64)
    x[unknown] = np.nan
    streams = tuple(Stream(model, replica, adapter, "sampler", "decoded", PIT, -1, side) for side in _SIDES)
    return Evidence(streams, np.array([_TAIL, _TAIL, 0.5, 0.5]), np.clip(x, 0, 1), sample.cluster)


def impossible(sample: Sample, model: str, replica: str, adapter: str) -> list[tuple[Stream, int]]:
    """Streams of signals that should be zero and are not, each with a row of the sample that shows it."""
    found = []
    for column, (signal, layer) in enumerate(sample.count_names):
        if signal not in IMPOSSIBLE:
            continue
        rows = np.flatnonzero(sample.counts[:, column] > 0)
        if rows.size:
            stream = Stream(
                model, replica, adapter, IMPOSSIBLE[signal], sample.kind.value, signal, layer, "any"
            )
            found.append((stream, int(rows[0])))
    return found

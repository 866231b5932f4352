"""Segments in, what can never happen while all is well out: it needs no reference and no bet.

A greedy token that is not an arg-max, and a value that is not a number, cannot happen: their bound is 0.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.sequential.evidence import Stream
from introspan_wire.codec import SCHEMAS_KEPT, Schema, SegmentTable

IMPOSSIBLE = {
    "sampler.greedy_mismatch": "sampler",
    "output.nonfinite": "nonfinite",
    "residual.nonfinite": "nonfinite",
}
"""Signals that are zero while all is well, and the detector whose evidence they are."""


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


@lru_cache(maxsize=SCHEMAS_KEPT)
def _zero_columns(schema: Schema) -> NDArray[np.intp]:
    """Places of the signals that should be zero."""
    places = [i for i, column in enumerate(schema.columns) if column.signal in IMPOSSIBLE]
    return np.array(places, np.intp)

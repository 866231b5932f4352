"""What has come of one schema, as the aggregates take it: rows sorted by group, beside each other in memory."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class RowGroup(NamedTuple):
    """What rows have in common that are reduced together."""

    slot: int
    model: str
    replica: str
    adapter: str


class Traces(NamedTuple):
    """Which rows belong to traced requests. rows: [t]; ids: uint8 [t, 24], trace id then span id; times: [t] s."""

    rows: NDArray[np.intp]
    ids: NDArray[np.uint8]
    times: NDArray[np.float64]


class Block(NamedTuple):
    """Rows sorted by group. values: [ordered columns, rows]; row_starts: [groups]; group, weights: [rows]."""

    groups: list[RowGroup]
    row_starts: NDArray[np.intp]
    group: NDArray[np.intp]
    values: NDArray[np.float32]
    weights: NDArray[np.float64]
    traces: Traces

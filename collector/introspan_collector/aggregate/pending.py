"""Tables of one schema in, one large block sorted by group out: NumPy pays by the call, frames are small."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from introspan_collector.aggregate.block import Block, RowGroup, Traces
from introspan_collector.layout import Layout
from introspan_collector.sums import by_column
from introspan_wire.codec import SegmentTable


class _Piece(NamedTuple):
    """Rows of one table that belong to one group."""

    group: int
    values: NDArray[np.float32]
    probability: NDArray[np.float32]
    trace_id: NDArray[np.uint8]
    span_id: NDArray[np.uint8]
    time_unix_nano: NDArray[np.uint64]


class Rows(NamedTuple):
    """Rows of the window for each (signal, layer) of a schema, and of the histograms for each signal."""

    series: NDArray[np.intp]
    histograms: NDArray[np.intp]


class Pending:
    """Tables of one schema that wait to be reduced together."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.bytes = 0
        self.rows: dict[tuple[str, str, str], Rows] = {}
        """Where rows of a model, replica and adapter are added to, as far as it is known."""
        self._pieces: list[_Piece] = []
        self._groups: dict[RowGroup, int] = {}

    def __len__(self) -> int:
        return len(self._pieces)

    def add(self, table: SegmentTable, model: str, replica: str, slot: int) -> None:
        """Takes a table."""
        adapters = dict.fromkeys(table.adapter)
        for adapter in adapters:
            group = self._groups.setdefault(RowGroup(slot, model, replica, adapter), len(self._groups))
            rows: slice | NDArray[np.intp] = slice(None)
            if len(adapters) > 1:
                rows = np.flatnonzero([name == adapter for name in table.adapter])
            self._pieces.append(
                _Piece(
                    group,
                    table.values[rows],
                    table.sampling_probability[rows],
                    table.trace_id[rows],
                    table.span_id[rows],
                    table.time_unix_nano[rows],
                )
            )
        self.bytes += table.values.nbytes

    def take(self) -> Block:
        """All that waited, which then waits no more."""
        # Sorting is stable: within a group rows stay in the order they came in.
        pieces, groups = sorted(self._pieces, key=lambda piece: piece.group), list(self._groups)
        self._pieces, self._groups, self.bytes = [], {}, 0
        _, values, probability, trace_id, span_id, time_unix_nano = zip(*pieces, strict=True)
        group = np.repeat([piece.group for piece in pieces], [len(piece.values) for piece in pieces])
        ids = np.hstack([np.concatenate(trace_id), np.concatenate(span_id)])
        traced = np.flatnonzero(ids[:, :16].any(1))
        times = np.concatenate(time_unix_nano)[traced] / 1e9
        return Block(
            groups,
            np.flatnonzero(np.diff(group, prepend=-1)),
            group,
            by_column(values)[self.layout.order],
            1.0 / np.concatenate(probability).astype(np.float64),
            Traces(traced, ids[traced], times),
        )

"""Tables of one schema in, one large block sorted by group out: NumPy pays by the call, frames are small."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from introspan_collector.aggregate.histograms import Traces
from introspan_collector.layout import Layout
from introspan_wire.codec import SegmentTable


class RowGroup(NamedTuple):
    """What rows have in common that are reduced together."""

    slot: int
    model: str
    replica: str
    adapter: str


class Block(NamedTuple):
    """Rows sorted by group. values: [rows, ordered columns]; row_starts: [groups]; group: [rows]."""

    groups: list[RowGroup]
    row_starts: NDArray[np.intp]
    group: NDArray[np.intp]
    values: NDArray[np.float32]
    weights: NDArray[np.float64]
    traces: Traces


class Pending:
    """Tables of one schema that wait to be reduced together."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.bytes = 0
        self._tables: list[SegmentTable] = []
        self._groups: dict[RowGroup, int] = {}
        self._group: list[NDArray[np.intp]] = []

    def __len__(self) -> int:
        return len(self._tables)

    def add(self, table: SegmentTable, model: str, replica: str, slot: int) -> None:
        """Takes a table."""
        adapters = table.adapter
        if len(set(adapters)) == 1:
            group = np.full(len(table), self._number(RowGroup(slot, model, replica, adapters[0])), np.intp)
        else:
            group = np.array(
                [self._number(RowGroup(slot, model, replica, name)) for name in adapters], np.intp
            )
        self._group.append(group)
        self._tables.append(table)
        self.bytes += table.values.nbytes

    def take(self) -> Block:
        """All that waited, which then waits no more."""
        tables, groups, group = self._tables, list(self._groups), np.concatenate(self._group)
        self._tables, self._groups, self._group, self.bytes = [], {}, [], 0
        order = np.argsort(group, kind="stable")
        group = group[order]
        values = np.concatenate([table.values for table in tables])
        probability = np.concatenate([table.sampling_probability for table in tables])[order]
        trace_id = np.concatenate([table.trace_id for table in tables])[order]
        span_id = np.concatenate([table.span_id for table in tables])[order]
        time = np.concatenate([table.time_unix_nano for table in tables])[order]
        traced = np.flatnonzero(trace_id.any(1))
        return Block(
            groups,
            np.flatnonzero(np.diff(group, prepend=-1)),
            group,
            values[order[:, None], self.layout.order[None, :]],
            1.0 / probability.astype(np.float64),
            Traces(traced, np.hstack([trace_id, span_id])[traced], time[traced] / 1e9),
        )

    def _number(self, key: RowGroup) -> int:
        return self._groups.setdefault(key, len(self._groups))

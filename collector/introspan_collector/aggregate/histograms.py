"""Blocks of values in, cumulative histograms with exemplars out."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from introspan_collector.aggregate.block import Block
from introspan_collector.aggregate.exemplars import Exemplars
from introspan_collector.aggregate.index import Allowance, Index
from introspan_collector.layout import SignalSpan
from introspan_collector.sums import Sums
from introspan_collector.view import OVERFLOW, Histogram
from introspan_wire.signals import CATALOGUE

# Values are float32: compared with bounds of float64, one at a bound would lie above it.
_BOUNDS = {name: np.array(signal.buckets, np.float32) for name, signal in CATALOGUE.items()}
_WIDTH = max(len(signal.buckets) for signal in CATALOGUE.values()) + 1
_COMPARISONS_AT_ONCE = 262_144  # a byte each: within a core's own cache
_COLUMNS_AT_ONCE = 255  # columns above a bound are counted in a byte


class HistogramKey(NamedTuple):
    """What one histogram is about."""

    model: str
    replica: str
    signal: str


def series_of(key: HistogramKey) -> int:
    """Time series one histogram is exposed as: its buckets, +Inf, the sum and the count."""
    return len(CATALOGUE[key.signal].buckets) + 3


class Histograms:
    """Cumulative, weighted bucket counts by (model, replica, signal), and the latest exemplar of each bucket."""

    def __init__(self, allowance: Allowance) -> None:
        self.index: Index[HistogramKey] = Index(
            allowance, series_of, lambda key: HistogramKey(OVERFLOW, OVERFLOW, key.signal)
        )
        self.counts = np.zeros((0, _WIDTH))
        self.totals = np.zeros(0)
        self.last_slot = np.zeros(0, np.int64)
        self._exemplars = Exemplars()

    def reserve(self) -> None:
        """Makes room for every key that has a row."""
        have = len(self.totals)
        if self.index.size <= have:
            return
        more = max(self.index.size, have + have // 2, 64) - have
        self.counts = np.concatenate([self.counts, np.zeros((more, _WIDTH))])
        self.totals = np.concatenate([self.totals, np.zeros(more)])
        self.last_slot = np.concatenate([self.last_slot, np.zeros(more, np.int64)])
        self._exemplars.reserve((have + more) * _WIDTH)

    def add(
        self, spans: Sequence[SignalSpan], block: Block, sums: Sums, histograms: NDArray[np.intp]
    ) -> None:
        """Counts the values of every signal. sums: those of the block; histograms: rows here by [groups, spans]."""
        for span, rows in zip(spans, histograms.T, strict=True):
            bounds = _BOUNDS[span.signal]
            groups = slice(span.first_group, span.end_group)
            values = block.values[span.first_column : span.end_column]
            if not sums.complete:
                values = np.where(np.isfinite(values), values, np.float32(-np.inf))
            above = np.zeros((len(bounds) + 2, values.shape[1]))
            above[0] = sums.count[groups].sum(0)
            _count_above(values, bounds, above[1:-1])
            weighted = np.add.reduceat(above * block.weights, block.row_starts, 1)
            # Several groups may share a histogram, which an index that names it twice would add to only once.
            np.add.at(self.counts[:, : len(bounds) + 1], rows, -np.diff(weighted, axis=0).T)
            total = sums.total[groups].sum(0) * block.weights
            np.add.at(self.totals, rows, np.add.reduceat(total, block.row_starts))
        if len(block.traces.rows):
            self._remember(spans, block, sums, histograms)

    def _remember(
        self, spans: Sequence[SignalSpan], block: Block, sums: Sums, histograms: NDArray[np.intp]
    ) -> None:
        rows = block.traces.rows
        first_groups = [span.first_group for span in spans]
        # The smallest and the largest value of a segment: the ends of a distribution are what one looks for.
        ends = np.stack(
            [
                np.minimum.reduceat(sums.low[:, rows], first_groups, 0),
                np.maximum.reduceat(sums.high[:, rows], first_groups, 0),
            ],
            1,
        )  # [spans, 2, traced]
        cells = np.stack(
            [np.searchsorted(_BOUNDS[span.signal], end) for span, end in zip(spans, ends, strict=True)]
        )
        cells += histograms[block.group[rows]].T[:, None] * _WIDTH
        measured = np.isfinite(ends)
        row = np.broadcast_to(np.arange(len(rows)), ends.shape)
        traces = block.traces
        self._exemplars.remember(cells[measured], ends[measured], traces.times, traces.ids, row[measured])

    def evict_before(self, slot: int) -> None:
        """Forgets histograms that were last used before a slot."""
        idle = [key for key, row in self.index.items() if self.last_slot[row] < slot]
        rows = np.array(self.index.evict(idle), np.intp)
        self.counts[rows], self.totals[rows] = 0.0, 0.0
        self._exemplars.clear((rows[:, None] * _WIDTH + np.arange(_WIDTH)).ravel())

    def views(self) -> Iterator[Histogram]:
        """Every histogram as it is now."""
        for key, row in self.index.items():
            bounds = CATALOGUE[key.signal].buckets
            first = row * _WIDTH
            yield Histogram(
                *key,
                bounds,
                self.counts[row, : len(bounds) + 1].copy(),
                float(self.totals[row]),
                self._exemplars.shown(first, first + _WIDTH),
            )


def _count_above(
    values: NDArray[np.float32], bounds: NDArray[np.float32], counts: NDArray[np.float64]
) -> None:
    """Adds how many values of a row are above each bound. values: [columns, rows]; counts: [bounds, rows].

    Comparing with every bound beats a binary search: it runs over neighbouring values in vector registers.
    """
    columns, rows = values.shape
    step = min(max(1, _COMPARISONS_AT_ONCE // max(1, len(bounds) * rows)), _COLUMNS_AT_ONCE)
    for first in range(0, columns, step):
        above = values[first : first + step] > bounds[:, None, None]
        counts += np.add.reduce(above.view(np.uint8), 1, np.uint8)

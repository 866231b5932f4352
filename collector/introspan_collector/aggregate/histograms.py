"""Blocks of values in, cumulative histograms with exemplars out."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from introspan_collector.aggregate.index import Allowance, Index
from introspan_collector.view import OVERFLOW, Exemplar, Histogram
from introspan_wire.signals import CATALOGUE

_WIDTH = max(len(signal.buckets) for signal in CATALOGUE.values()) + 1


class HistogramKey(NamedTuple):
    """What one histogram is about."""

    model: str
    replica: str
    signal: str


class Traces(NamedTuple):
    """Which rows belong to traced requests. rows: [t]; ids: uint8 [t, 24], trace id then span id; times: [t] s."""

    rows: NDArray[np.intp]
    ids: NDArray[np.uint8]
    times: NDArray[np.float64]


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
        self._exemplar_value = np.zeros((0, _WIDTH))
        self._exemplar_time = np.zeros((0, _WIDTH))
        self._exemplar_ids = np.zeros((0, _WIDTH, 24), np.uint8)

    def reserve(self) -> None:
        """Makes room for every key that has a row."""
        have = len(self.totals)
        if self.index.size <= have:
            return
        more = max(self.index.size, have + have // 2, 64) - have
        self.counts = np.concatenate([self.counts, np.zeros((more, _WIDTH))])
        self.totals = np.concatenate([self.totals, np.zeros(more)])
        self.last_slot = np.concatenate([self.last_slot, np.zeros(more, np.int64)])
        self._exemplar_value = np.concatenate([self._exemplar_value, np.zeros((more, _WIDTH))])
        self._exemplar_time = np.concatenate([self._exemplar_time, np.zeros((more, _WIDTH))])
        self._exemplar_ids = np.concatenate([self._exemplar_ids, np.zeros((more, _WIDTH, 24), np.uint8)])

    def add(
        self,
        signal: str,
        values: NDArray[np.float32],
        weights: NDArray[np.float64],
        histogram_rows: NDArray[np.intp],
        traces: Traces,
    ) -> None:
        """Counts the values of one signal. values: [rows, columns]; weights, histogram_rows: [rows]."""
        bounds = np.array(CATALOGUE[signal].buckets, np.float32)
        # A value lies in the bucket of the first bound it is not above. Comparing with every bound beats a
        # binary search: it runs over neighbouring values in the processor's vector registers.
        bucket = np.zeros(values.shape, np.uint8)
        for bound in bounds:
            bucket += values > bound
        finite = np.isfinite(values)
        per_value = np.where(finite, weights[:, None], 0.0)
        used, dense = np.unique(histogram_rows, return_inverse=True)
        cells = dense[:, None] * _WIDTH + bucket
        counts = np.bincount(cells.ravel(), per_value.ravel(), len(used) * _WIDTH)
        self.counts[used] += counts.reshape(len(used), _WIDTH)
        total = np.where(finite, values, np.float32(0)).sum(1, dtype=np.float64)
        self.totals[used] += np.bincount(dense, weights * total, len(used))
        if len(traces.rows):
            self._remember(bounds, values[traces.rows], histogram_rows[traces.rows], traces)

    def _remember(
        self,
        bounds: NDArray[np.float32],
        values: NDArray[np.float32],
        histogram_rows: NDArray[np.intp],
        traces: Traces,
    ) -> None:
        finite = np.isfinite(values)
        measured = finite.any(1)
        # The smallest and the largest value of a segment: the ends of a distribution are what one looks for.
        for empty, extreme in ((np.inf, np.min), (-np.inf, np.max)):
            value = extreme(np.where(finite, values, np.float32(empty)), axis=1)[measured]
            cell = (histogram_rows[measured], np.searchsorted(bounds, value))
            self._exemplar_value[cell] = value
            self._exemplar_time[cell] = traces.times[measured]
            self._exemplar_ids[cell] = traces.ids[measured]

    def evict_before(self, slot: int) -> None:
        """Forgets histograms that were last used before a slot."""
        idle = [key for key, row in self.index.items() if self.last_slot[row] < slot]
        rows = np.array(self.index.evict(idle), np.intp)
        self.counts[rows], self.totals[rows], self._exemplar_time[rows] = 0.0, 0.0, 0.0

    def views(self) -> Iterator[Histogram]:
        """Every histogram as it is now."""
        for key, row in self.index.items():
            bounds = CATALOGUE[key.signal].buckets
            buckets = np.flatnonzero(self._exemplar_time[row]).tolist()
            yield Histogram(
                *key,
                bounds,
                self.counts[row, : len(bounds) + 1].copy(),
                float(self.totals[row]),
                {bucket: self._exemplar(row, bucket) for bucket in buckets},
            )

    def _exemplar(self, row: int, bucket: int) -> Exemplar:
        ids = self._exemplar_ids[row, bucket]
        return Exemplar(
            ids[:16].tobytes().hex(),
            ids[16:].tobytes().hex() if ids[16:].any() else "",
            float(self._exemplar_value[row, bucket]),
            float(self._exemplar_time[row, bucket]),
        )

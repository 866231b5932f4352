"""Batches in, windowed statistics and cumulative histograms out."""

import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from introspan_collector.aggregate import checkpoint
from introspan_collector.aggregate.block import Block, RowGroup
from introspan_collector.aggregate.histograms import HistogramKey, Histograms
from introspan_collector.aggregate.index import Allowance, Index
from introspan_collector.aggregate.pending import Pending, Rows
from introspan_collector.aggregate.schemas import Schemas
from introspan_collector.aggregate.settings import AggregateSettings
from introspan_collector.aggregate.window import Window
from introspan_collector.aggregate.workers import Workers
from introspan_collector.layout import Layout, is_counted
from introspan_collector.model import Batch, SeriesKey
from introspan_collector.moments import Moments
from introspan_collector.sums import Sums, merge_rows, sum_columns
from introspan_collector.view import NO_LAYER, OVERFLOW, Track, View, Worker

REPETITION_TOKENS = 64
"""A periodic tail of that many tokens counts as an event of `output.repetition`."""

_PENDING_BYTES = 2 << 20  # of one schema: some 1,000 default rows
_PENDING_BYTES_TOTAL = 16 << 20


class Aggregator:
    """Bounded statistics of everything consumed. Safe to read from other threads.

    Slots follow the time the collector received a batch, so that a producer's wrong clock moves nothing.
    """

    def __init__(
        self,
        settings: AggregateSettings | None = None,
        clock_unix_nano: Callable[[], int] = time.time_ns,
    ) -> None:
        self._settings = settings or AggregateSettings()
        self._clock = clock_unix_nano
        self._slot_nano = round(self._settings.slot_seconds * 1e9)
        self._lock = threading.Lock()
        self._start_empty()

    def consume(self, batch: Batch) -> None:
        """Takes one batch, in log order."""
        slot = batch.received_unix_nano // self._slot_nano
        with self._lock:
            self._workers.see(batch, self._clock())
            for table in batch.tables:
                if not len(table):
                    continue
                pending = self._schemas.pending(table.schema)
                pending.add(table, batch.origin.model, batch.origin.replica, slot)
                if pending.bytes >= _PENDING_BYTES:
                    self._reduce(pending)
            if self._schemas.waiting_bytes >= _PENDING_BYTES_TOTAL:
                self._schemas.reduce_all()
            self._sweep()

    def view(self) -> View:
        """Everything at this moment."""
        with self._lock:
            self._schemas.reduce_all()
            now = self._clock()
            last = now // self._slot_nano
            self._sweep()
            keys, rows = self._series()
            window = self._window.shown(last - self._settings.shown_slots + 1, last, rows)
            return View(
                time_unix_nano=now,
                window_seconds=self._settings.slot_seconds * self._settings.shown_slots,
                series=keys,
                window=window,
                histograms=tuple(self._histograms.views()),
                events=tuple(
                    (key, float(self._window.events[row]))
                    for key, row in zip(keys, rows.tolist(), strict=True)
                    if is_counted(key.signal)
                ),
                workers=self._workers.views(),
                series_limit=self._allowance.limit,
                series_used=self._allowance.used,
                overflow_values=self._overflow_values,
                infinite_values=self._infinite_values,
                schemas=len(self._schemas),
                evicted_schemas=self._schemas.evicted,
            )

    def workers(self) -> tuple[Worker, ...]:
        """Every worker that is heard of, without the cost of a view."""
        with self._lock:
            return self._workers.views()

    def tracks(self, wanted: Callable[[SeriesKey], bool], limit: int) -> list[Track]:
        """The kept slots of every series that is wanted, at most limit of them."""
        with self._lock:
            self._schemas.reduce_all()
            last = self._clock() // self._slot_nano
            found = [(key, row) for key, row in self._index.items() if wanted(key)][:limit]
            tracks = []
            for key, row in found:
                numbers, sets = self._window.by_slot(last - self._settings.kept_slots + 1, last, row)
                measured = sets.count > 0
                starts = numbers[measured].astype(np.float64) * self._settings.slot_seconds
                tracks.append(Track(key, starts, sets.at(measured)))
            return tracks

    def snapshot(self) -> bytes:
        """The cumulative state, for a checkpoint. Window slots are left out: they would be old by then."""
        with self._lock:
            self._schemas.reduce_all()
            keys, rows = self._series()
            counted = [i for i, key in enumerate(keys) if is_counted(key.signal)]
            return checkpoint.dump(
                checkpoint.State(
                    [(keys[i], float(self._window.events[rows[i]])) for i in counted],
                    list(self._histograms.views()),
                    self._workers.views(),
                )
            )

    def restore(self, data: bytes) -> None:
        """Puts a snapshot's cumulative state in place of this one. Raises ValueError for a damaged one."""
        events, histograms, workers = checkpoint.load(data)
        now = self._clock()
        slot = now // self._slot_nano
        with self._lock:
            self._start_empty()
            for key, total in events:
                row = self._index.row(key)
                self._window.reserve(self._index.size)
                self._window.events[row] += total
                self._window.last_slot[row] = slot
            for view in histograms:
                row = self._histograms.index.row(HistogramKey(view.model, view.replica, view.signal))
                self._histograms.reserve()
                self._histograms.last_slot[row] = slot
                self._histograms.counts[row, : len(view.counts)] += view.counts
                self._histograms.totals[row] += view.total
            self._workers.restore(workers, now)

    def _start_empty(self) -> None:
        self._allowance = Allowance(self._settings.series_limit)
        self._index: Index[SeriesKey] = Index(self._allowance, _series_of, _overflow_of)
        self._window = Window(self._settings.kept_slots + 1)
        self._histograms = Histograms(self._allowance)
        self._workers = Workers(self._settings.worker_limit, self._allowance)
        self._schemas = Schemas(self._reduce)
        self._swept_slot = 0
        self._overflow_values = 0
        self._infinite_values = 0

    def _series(self) -> tuple[tuple[SeriesKey, ...], NDArray[np.intp]]:
        items = list(self._index.items())
        return tuple(key for key, _ in items), np.array([row for _, row in items], np.intp)

    def _reduce(self, pending: Pending) -> None:
        block = pending.take()
        if not len(pending.layout.order):
            return
        sums = sum_columns(block.values, pending.layout.column_starts)
        if not sums.complete:
            self._infinite_values += int(np.isinf(block.values).sum())
        found = [self._rows(pending, group) for group in block.groups]
        series = np.stack([rows.series for rows in found])
        histograms = np.stack([rows.histograms for rows in found])
        now = self._clock() // self._slot_nano
        self._window.reserve(self._index.size)
        self._window.last_slot[series] = now
        self._histograms.reserve()
        self._histograms.last_slot[histograms] = now
        self._add_to_window(block, series, merge_rows(sums, block.weights, block.row_starts))
        self._histograms.add(pending.layout.spans, block, sums, histograms)
        self._add_events(pending.layout, block, series, sums)

    def _add_events(self, plan: Layout, block: Block, rows: NDArray[np.intp], sums: Sums) -> None:
        for span in plan.spans:
            if is_counted(span.signal):
                groups = slice(span.first_group, span.end_group)
                events = sums.total[groups]
                if span.signal == "output.repetition":
                    # It has no axes: each group is one column.
                    events = (sums.high[groups] >= REPETITION_TOKENS).astype(np.float64)
                np.add.at(
                    self._window.events, rows[:, groups], np.add.reduceat(events, block.row_starts, 1).T
                )

    def _add_to_window(self, block: Block, rows: NDArray[np.intp], sets: Moments) -> None:
        slots = np.array([group.slot for group in block.groups])
        for slot in np.unique(slots).tolist():
            mine = slots == slot
            flat_rows = rows[mine].ravel()
            flat = Moments(*(getattr(sets, name)[mine].ravel() for name in Moments.__slots__))
            # Several keys may share an overflow row: merged here, because a row is put only once.
            distinct, group = np.unique(flat_rows, return_inverse=True)
            self._window.add(slot, distinct, flat.grouped(group, len(distinct)))
            spilled = np.isin(distinct, np.array(self._index.overflow_rows(), np.intp))
            self._overflow_values += int(flat.count[spilled[group]].sum())

    def _rows(self, pending: Pending, group: RowGroup) -> Rows:
        """Where one group of rows is added to."""
        at = (group.model, group.replica, group.adapter)
        rows = pending.rows.get(at)
        if rows is None:
            series = [
                self._index.row(SeriesKey(*at, signal, layer)) for signal, layer in pending.layout.groups
            ]
            histograms = [
                self._histograms.index.row(HistogramKey(group.model, group.replica, span.signal))
                for span in pending.layout.spans
            ]
            self._schemas.make_room()
            rows = pending.rows[at] = Rows(np.array(series, np.intp), np.array(histograms, np.intp))
        return rows

    def _sweep(self) -> None:
        """Evicts what has been idle, at most once a minute: it costs a look at every series.

        Idle is what nothing was added to for a while by the clock, so that replaying an old log evicts nothing.
        """
        slot = self._clock() // self._slot_nano
        if (slot - self._swept_slot) * self._settings.slot_seconds < 60:
            return
        self._swept_slot = slot
        self._schemas.reduce_all()
        oldest = slot - int(self._settings.idle_seconds / self._settings.slot_seconds)
        idle = [key for key, row in self._index.items() if self._window.last_slot[row] < oldest]
        self._window.clear(self._index.evict(idle))
        self._histograms.evict_before(oldest)
        self._workers.forget_before(oldest * self._slot_nano)
        # Rows may now belong to others, and what overflowed may now have room.
        self._schemas.forget_rows()


def _series_of(key: SeriesKey) -> int:
    return 2 if is_counted(key.signal) else 1


def _overflow_of(key: SeriesKey) -> SeriesKey:
    return SeriesKey(OVERFLOW, OVERFLOW, OVERFLOW, key.signal, NO_LAYER)

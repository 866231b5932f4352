"""Batches in, what each worker last said of itself out."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from introspan_collector.aggregate.index import Allowance
from introspan_collector.model import Batch, Origin, ProducerStatus
from introspan_collector.reasons import series_of
from introspan_collector.view import Worker

_Name = tuple[str, str, int, int, int]


@dataclass(slots=True)
class _Entry:
    origin: Origin
    status: ProducerStatus | None = None
    last_seen_unix_nano: int = 0
    segments: Counter[str] = field(default_factory=Counter)
    series: int = 0
    taken_unix_nano: int = 0


class Workers:
    """The latest status of each worker, the most recently seen ones up to a limit.

    A worker's own time series count like those of signals: beyond the allowance it is known, but not exposed.
    """

    def __init__(self, limit: int, allowance: Allowance) -> None:
        self._limit = limit
        self._allowance = allowance
        self._entries: dict[_Name, _Entry] = {}

    def see(self, batch: Batch, now_unix_nano: int) -> None:
        """Takes note of a batch, which may have been received long ago."""
        # Taken out and put back: the dict's order is then the order of last sight.
        entry = self._entries.pop(_name(batch.origin), None) or _Entry(batch.origin)
        entry.origin = batch.origin
        entry.last_seen_unix_nano = batch.received_unix_nano
        if batch.status is not None:
            entry.status = batch.status
        for table in batch.tables:
            entry.segments[table.schema.kind.value] += len(table)
        self._keep(entry, now_unix_nano)

    def restore(self, workers: Iterable[Worker], now_unix_nano: int) -> None:
        """Takes back what `views` gave, in that order."""
        for worker in workers:
            segments = Counter(dict(worker.segments))
            entry = _Entry(worker.origin, worker.status, worker.last_seen_unix_nano, segments)
            self._keep(entry, now_unix_nano)

    def forget_before(self, unix_nano: int) -> None:
        """Forgets workers of which nothing was taken since, by the clock: replaying an old log forgets none."""
        for name in [name for name, entry in self._entries.items() if entry.taken_unix_nano < unix_nano]:
            self._forget(name)

    def views(self) -> tuple[Worker, ...]:
        """Every worker known."""
        return tuple(
            Worker(
                entry.origin,
                entry.status,
                entry.last_seen_unix_nano,
                tuple(sorted(entry.segments.items())),
                exposed=entry.series > 0,
            )
            for entry in self._entries.values()
        )

    def _keep(self, entry: _Entry, now_unix_nano: int) -> None:
        entry.taken_unix_nano = now_unix_nano
        self._entries[_name(entry.origin)] = entry
        self._allowance.used -= entry.series
        series = series_of(entry.status, entry.segments)
        entry.series = series if self._allowance.take(series) else 0
        if len(self._entries) > self._limit:
            self._forget(next(iter(self._entries)))

    def _forget(self, name: _Name) -> None:
        self._allowance.used -= self._entries.pop(name).series


def _name(origin: Origin) -> _Name:
    """What stays the same when a worker comes back with other weights or another version: its labels on /metrics."""
    ranks = (origin.tensor_parallel_rank, origin.pipeline_parallel_rank, origin.data_parallel_rank)
    return (origin.model, origin.replica, *ranks)

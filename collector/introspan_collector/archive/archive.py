"""Batches in, Parquet parts by hour and one-minute rollups out."""

import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import structlog

from introspan_collector.archive.compaction import join_hours
from introspan_collector.archive.damage import Damage
from introspan_collector.archive.files import (
    hour_of,
    hour_start,
    part_path,
    parts,
    unfinished,
    write_whole,
)
from introspan_collector.archive.lookup import Filter, Lookup
from introspan_collector.archive.part import Segments, write_part
from introspan_collector.archive.retention import Retention
from introspan_collector.archive.rollups import Wanted, read_rollups, write_rollups
from introspan_collector.archive.schemas import Schemas
from introspan_collector.archive.settings import ArchiveSettings
from introspan_collector.joined import joined
from introspan_collector.model import Batch
from introspan_collector.view import ArchiveStats, Stored, Track
from introspan_wire.codec import Schema, SegmentTable
from introspan_wire.signals import Kind

_log = structlog.get_logger(__name__)

_RETRY_SECONDS = 5.0
_TIDY_SECONDS = 60.0
# While the disk refuses, so many buffers are held before segments are given up (and counted).
_BUFFERS_HELD = 4


class Archive:
    """Writes what it consumes below `directory`: observations/, rollups/ and schemas/.

    A part is named by the range of log offsets it holds and is whole or absent; the highest one is the cursor.
    The rollup of a part is written before it, under the same name, so replaying the log from the cursor after a
    crash writes both again and neither twice. consume, flush and flush_due belong to one thread.
    """

    def __init__(
        self,
        directory: Path,
        settings: ArchiveSettings | None = None,
        clock_unix_nano: Callable[[], int] = time.time_ns,
    ) -> None:
        self._settings = settings or ArchiveSettings()
        self._clock = clock_unix_nano
        self._observations = directory / "observations"
        self._rollups = directory / "rollups"
        self._damage = Damage()
        self._schemas = Schemas(directory / "schemas", self._damage)
        self._retention = Retention(self._observations, self._rollups, self._schemas, self._settings)
        self._lookup = Lookup(directory, lambda: self._segments, self._damage)
        self._connection = duckdb.connect(":memory:", config={"threads": 1})
        self._segments: list[Segments] = []
        self._buffered_bytes = 0
        self._buffered_schemas: set[Schema] = set()
        self._opened_unix_nano = 0
        self._retry_unix_nano = 0
        self._tidied_unix_nano = 0
        self._untidy = False
        self._failing = False
        self._totals = {"parts": 0, "segments": 0, "bytes": 0, "errors": 0, "lost": 0, "deleted": 0}
        self._write_seconds = 0.0
        self._kept_bytes = 0
        self._end = self._recover(directory)
        self._consumed = self._end
        self._first = self._end

    def cursor(self) -> int:
        """Log offset before which everything is in parts."""
        return self._end if self._segments else max(self._end, self._consumed)

    def consume(self, batch: Batch) -> None:
        """Takes one batch; writes a part when enough has come or the hour has changed."""
        if batch.next_offset <= self._end:
            return
        if self._segments and hour_of(batch.received_unix_nano) != self._hour():
            self._write_if_allowed()
        if self._buffered_bytes >= self._settings.buffer_bytes * _BUFFERS_HELD:
            self._totals["lost"] += sum(len(table) for table in batch.tables)
            return
        if not self._segments:
            self._first = batch.offset
            self._opened_unix_nano = self._clock()
        self._consumed = batch.next_offset
        for table in batch.tables:
            if len(table):
                self._segments.append(Segments(batch, table))
                self._buffered_bytes += _bytes_of(table)
                if table.schema not in self._buffered_schemas:
                    self._buffered_schemas.add(table.schema)
                    self._buffered_bytes += _bytes_of_columns(table.schema)
        self.flush_due()

    def flush_due(self) -> None:
        """Writes a part if the buffer is full or old enough; call it now and then while nothing comes."""
        age_nano = self._clock() - self._opened_unix_nano
        full = self._buffered_bytes >= self._settings.buffer_bytes
        # A clock that was set back says nothing of how old it is.
        if self._segments and (full or not 0 <= age_nano < self._settings.flush_seconds * 1e9):
            self._write_if_allowed()

    def flush(self) -> None:
        """Writes what is buffered now. A disk that refuses is counted; the log still has the segments."""
        if self._segments:
            self._write()

    def stats(self) -> ArchiveStats:
        """Counts and sizes at this moment."""
        totals = self._totals
        return ArchiveStats(
            parts_written=totals["parts"],
            segments_written=totals["segments"],
            bytes_written=totals["bytes"],
            write_seconds=self._write_seconds,
            write_errors=totals["errors"],
            lost_segments=totals["lost"],
            bytes_deleted=totals["deleted"],
            bytes_kept=self._kept_bytes,
            buffered_bytes=self._buffered_bytes,
            unreadable_files=len(self._damage),
        )

    def tracks(
        self,
        wanted: Wanted,
        from_unix_seconds: float,
        to_unix_seconds: float,
        step_seconds: int = 60,
    ) -> list[Track]:
        """By steps of whole minutes, the series wanted: (signal, model, replica, adapter, layer), None = every.

        May be called from other threads. What is still buffered is not in it, nor what cannot be read.
        """
        hour = hour_of(int(max(from_unix_seconds, 0) * 1e9))
        asked = (wanted, from_unix_seconds, to_unix_seconds, step_seconds)
        return self._damage.read(
            lambda: [part.path for part in parts(self._rollups, hour)], lambda paths: _tracks(paths, *asked)
        )

    def request(self, request_id: str, from_unix_seconds: float, to_unix_seconds: float) -> list[Stored]:
        """Segments of a request by its client's id, received in the last hour of a time that has it, in log order.

        What several workers measured of one segment is one row.
        """
        hours = [hour_of(int(max(one, 0) * 1e9)) for one in (from_unix_seconds, to_unix_seconds)]
        return joined(self._lookup.request(request_id, *hours))

    def newest(
        self, model: str, replica: str | None, adapter: str | None, kind: Kind | None, limit: int
    ) -> list[Stored]:
        """The newest segments of a model, newest first; None = every. May be called from other threads.

        At most about limit; fewer where several workers measure of one segment, whose rows are one here.
        """
        return joined(self._lookup.newest(Filter(model, replica, adapter, kind), limit), newest_first=True)

    def _recover(self, directory: Path) -> int:
        for path in list(unfinished(directory)):
            path.unlink()
        end = max((part.end for part in parts(self._observations)), default=0)
        # A crash between a rollup and its part leaves a rollup that replay writes again.
        for part in parts(self._rollups):
            if part.end > end:
                part.path.unlink()
        self._kept_bytes = self._retention.kept_bytes()
        self._schemas.all_used(max((hour_start(part) for part in parts(self._observations)), default=0))
        return end

    def _hour(self) -> str:
        return hour_of(self._segments[0].batch.received_unix_nano)

    def _write_if_allowed(self) -> None:
        # As above: what is further away than any retry was meant for another clock.
        if not 0 < self._retry_unix_nano - self._clock() <= _RETRY_SECONDS * 1e9:
            self._write()

    def _write(self) -> None:
        """Writes a part for each hour: while the disk refuses, several gather."""
        while self._segments:
            started = time.perf_counter()
            members, end = self._first_hour()
            try:
                self._write_files(members, end)
            except (OSError, duckdb.Error) as error:
                self._note_failure(error)
                return
            if self._failing:
                _log.info("archive is written again")
            self._failing = False
            self._write_seconds += time.perf_counter() - started
            self._totals["parts"] += 1
            self._totals["segments"] += sum(len(item.table) for item in members)
            self._segments = self._segments[len(members) :]
            self._buffered_schemas = {item.table.schema for item in self._segments}
            self._buffered_bytes = sum(_bytes_of(item.table) for item in self._segments)
            self._buffered_bytes += sum(map(_bytes_of_columns, self._buffered_schemas))
            self._end = self._first = end
        self._tidy()

    def _first_hour(self) -> tuple[list[Segments], int]:
        """What is buffered of the first hour, and the offset up to which it reaches."""
        hour = self._hour()
        for number, item in enumerate(self._segments):
            if hour_of(item.batch.received_unix_nano) != hour:
                return self._segments[:number], item.batch.offset
        return self._segments, self._consumed

    def _note_failure(self, error: Exception) -> None:
        self._totals["errors"] += 1
        self._retry_unix_nano = self._clock() + int(_RETRY_SECONDS * 1e9)
        if not self._failing:
            path = str(self._observations)
            _log.error("archive cannot be written, will be retried", path=path, error=str(error))
        self._failing = True

    def _write_files(self, segments: list[Segments], end: int) -> None:
        received = segments[0].batch.received_unix_nano
        ids = {
            schema: self._schemas.store(self._connection, schema, received)
            for schema in {item.table.schema for item in segments}
        }
        rollup, part = (
            part_path(root, self._hour(), self._first, end) for root in (self._rollups, self._observations)
        )
        write_whole(rollup, lambda to: write_rollups(self._connection, segments, to))
        write_whole(part, lambda to: write_part(self._connection, segments, ids, to))
        written = rollup.stat().st_size + part.stat().st_size
        self._totals["bytes"] += written
        self._kept_bytes += written

    def _tidy(self) -> None:
        """Joins rollups and deletes what is too old or too much, at most once a minute."""
        now = self._clock()
        if 0 <= now - self._tidied_unix_nano < _TIDY_SECONDS * 1e9:
            return
        self._tidied_unix_nano = now
        # Apart: an hour that cannot be joined must not keep old ones from being deleted.
        tidied = [
            self._attempt(lambda: join_hours(self._connection, self._rollups, hour_of(now))),
            self._attempt(lambda: self._delete(now)),
        ]
        self._untidy = not all(tidied)
        self._kept_bytes = self._retention.kept_bytes()

    def _delete(self, now: int) -> None:
        self._totals["deleted"] += self._retention.delete(now)

    def _attempt(self, tidy: Callable[[], None]) -> bool:
        try:
            tidy()
        except (OSError, duckdb.Error) as error:
            self._totals["errors"] += 1
            if not self._untidy:
                _log.error("archive cannot be tidied, will be retried", error=str(error))
            return False
        return True


def _tracks(
    paths: list[Path], wanted: Wanted, from_unix_seconds: float, to_unix_seconds: float, step_seconds: int
) -> list[Track]:
    # A connection of its own: a damaged file can make one unusable.
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        return read_rollups(connection, paths, wanted, from_unix_seconds, to_unix_seconds, step_seconds)


def _bytes_of(table: SegmentTable) -> int:
    return table.values.nbytes + 256 * len(table)


def _bytes_of_columns(schema: Schema) -> int:
    # What a part takes to be written grows by the column with each schema in it, and peers choose schemas.
    return 256 * len(schema.columns)

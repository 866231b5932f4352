"""Settings in, a running collector out: the one file that knows the order of the stages."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from introspan_collector.accept.intake import Intake
from introspan_collector.accept.limits import ProducerLimits
from introspan_collector.accept.pressure import Pressure
from introspan_collector.accept.server import AcceptServer, Tls
from introspan_collector.aggregate.aggregator import Aggregator
from introspan_collector.config import ConfigurationError, Settings
from introspan_collector.feed import Branch, Feed
from introspan_collector.log.appender import Appender
from introspan_collector.log.committer import Committer
from introspan_collector.log.cursor import Cursor, DamagedCursorError, load_cursor, save_cursor
from introspan_collector.log.files import Disk
from introspan_collector.log.reader import Reader
from introspan_collector.log.record import Record
from introspan_collector.log.retention import Retention
from introspan_collector.log.sequences import Sequences
from introspan_collector.model import Stats
from introspan_wire.v1 import observation_service_pb2 as pb

_log = structlog.get_logger(__name__)

_AGGREGATE_CURSOR = "aggregate"
_REMEMBERED_PRODUCERS = 100_000
_GRACE_SECONDS = 2.0
_DRAIN_SECONDS = 5.0


class Pipeline:
    """accept → log → aggregate, archive. Built from settings, started and drained once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._started_at = time.monotonic()
        self._cursor_files = Disk(settings.data / "cursors")
        self.aggregator = Aggregator()
        aggregate_start = self._restore()
        self._sequences = Sequences(_REMEMBERED_PRODUCERS)
        self._retention = Retention(
            max_bytes=settings.log.max_bytes, max_age_seconds=settings.log.max_age_seconds
        )
        group = settings.log.commit == "group"
        self._appender = Appender(
            Disk(settings.data / "log"),
            self._sequences,
            self._retention,
            segment_bytes=settings.log.segment_bytes,
            sync_each=group,
            not_before=aggregate_start,
        )
        self._committer = Committer(
            self._appender, interval_seconds=None if group else settings.log.commit_interval_seconds
        )
        branches = (Branch("aggregate", self.aggregator, aggregate_start),)
        self._reader = Reader(Disk(settings.data / "log"), min(branch.start for branch in branches))
        self._feed = Feed(
            self._reader,
            branches,
            log_end=lambda: self._appender.end,
            grown=self._committer.grown,
            save=self._save,
            save_seconds=settings.checkpoint.interval_seconds,
        )
        self._pressure = Pressure(
            max_pending_bytes=settings.accept.max_pending_bytes,
            max_lag_bytes=settings.log.max_bytes // 2,
            max_resident_bytes=settings.accept.max_resident_bytes,
            lag_bytes=lambda: self._feed.lag_bytes,
        )
        self._limits = ProducerLimits(
            bytes_per_second=settings.accept.producer_bytes_per_second,
            burst_bytes=settings.accept.producer_burst_bytes,
            max_producers=settings.accept.max_producers,
        )
        self._intake = Intake(
            _Journal(self._committer, self._sequences),
            self._pressure,
            self._limits,
            directives=_directives(settings),
            max_request_bytes=settings.accept.max_request_bytes,
        )
        self._server: AcceptServer | None = None

    async def start(self) -> int:
        """Begins to accept; returns the port. Raises ConfigurationError if the address or the files cannot be used."""
        accept = self._settings.accept
        tls, token = _tls(self._settings), _read(accept.bearer_token_file, "accept.bearer_token_file")
        try:
            self._server = AcceptServer(
                self._intake,
                self._settings.grpc,
                max_request_bytes=accept.max_request_bytes,
                tls=tls,
                bearer_token=None if token is None else token.decode().strip(),
            )
        except RuntimeError as error:
            raise ConfigurationError(
                f"grpc = {self._settings.grpc} cannot be bound: {error}; choose a free address"
            ) from error
        self._feed.start()
        await self._server.start()
        return self._server.port

    async def drain(self) -> None:
        """Stops accepting, answers what is under way, processes what is in the log and saves."""
        if self._server is not None:
            await self._server.drain(_GRACE_SECONDS)
        await asyncio.to_thread(self._committer.close)
        await asyncio.to_thread(self._feed.stop, _DRAIN_SECONDS)

    def stats(self) -> Stats:
        """Counts and sizes at this moment."""
        intake, appender, feed = self._intake, self._appender, self._feed
        return Stats(
            accepted_batches=intake.accepted_batches,
            accepted_segments=intake.accepted_segments,
            accepted_bytes=intake.accepted_bytes,
            duplicate_batches=intake.duplicate_batches,
            refused_batches=dict(intake.refused_batches),
            dropped=dict(feed.dropped),
            skewed_segments=intake.skewed_segments,
            unknown_columns=intake.unknown_columns,
            producers=len(self._limits),
            evicted_producers=self._sequences.evicted,
            processed_batches=feed.processed_batches,
            pending_bytes=self._pressure.pending_bytes,
            log_bytes=self._retention.log_bytes,
            log_segments=self._retention.log_segments,
            lag_bytes=feed.lag_bytes,
            lag_seconds=feed.lag_seconds,
            syncs=appender.syncs,
            sync_seconds=appender.sync_seconds,
            write_errors=self._committer.write_errors,
            torn_bytes=appender.torn_bytes,
            corrupt_bytes=self._reader.corrupt_bytes,
            expired_bytes=self._reader.expired_bytes,
            checkpoint_age_seconds=time.monotonic() - feed.saved_at,
        )

    def _restore(self) -> int:
        try:
            cursor = load_cursor(self._cursor_files, _AGGREGATE_CURSOR)
            if cursor is None:
                return 0
            self.aggregator.restore(cursor.state)
        except (DamagedCursorError, ValueError) as error:
            # The log still holds what retention kept of it: start over from its beginning.
            _log.error("aggregates start over from the beginning of the log", error=str(error))
            return 0
        return cursor.offset

    def _save(self, offset: int) -> None:
        save_cursor(self._cursor_files, _AGGREGATE_CURSOR, Cursor(offset, self.aggregator.snapshot()))


class _Journal:
    """The log as `accept` sees it."""

    def __init__(self, committer: Committer, sequences: Sequences) -> None:
        self._committer = committer
        self.seen = sequences.seen

    def append(
        self,
        received_unix_nano: int,
        producer: bytes,
        sequence: int,
        payload: bytes,
        done: Callable[[OSError | None], None],
    ) -> None:
        self._committer.append(Record(received_unix_nano, producer, sequence, payload), done)


def _directives(settings: Settings) -> pb.Directives | None:
    accept = settings.accept
    if accept.max_sampling_probability is None and not accept.capture_off:
        return None
    return pb.Directives(
        max_sampling_probability=accept.max_sampling_probability, capture_off=accept.capture_off
    )


def _tls(settings: Settings) -> Tls | None:
    accept = settings.accept
    certificate = _read(accept.tls_certificate_file, "accept.tls_certificate_file")
    key = _read(accept.tls_key_file, "accept.tls_key_file")
    if certificate is None or key is None:
        return None
    return Tls(certificate, key, _read(accept.tls_client_ca_file, "accept.tls_client_ca_file"))


def _read(path: Path | None, key: str) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{key} = {path} cannot be read: {error.strerror}") from error

"""Settings in, a running collector out: the one file that knows the order of the stages."""

import asyncio
import fcntl
import time
from typing import IO

import structlog

from introspan_collector.accept.credentials import load_tls, load_token
from introspan_collector.accept.intake import Intake
from introspan_collector.accept.limits import ProducerLimits
from introspan_collector.accept.pressure import Pressure
from introspan_collector.accept.refusal import RefusalError
from introspan_collector.accept.server import AcceptServer
from introspan_collector.aggregate.aggregator import Aggregator
from introspan_collector.archive.archive import Archive
from introspan_collector.checkpoint import Checkpoint
from introspan_collector.config import ConfigurationError, Settings
from introspan_collector.detect.detector import Detector
from introspan_collector.detect.report import Report
from introspan_collector.expose.app import build
from introspan_collector.expose.sources import Sources
from introspan_collector.feed import Branch, Feed
from introspan_collector.log.appender import Appender
from introspan_collector.log.committer import Committer
from introspan_collector.log.files import Disk
from introspan_collector.log.reader import Reader
from introspan_collector.log.recent import Recent
from introspan_collector.log.retention import Retention
from introspan_collector.log.sequences import Sequences
from introspan_collector.model import Checkpointed, Stats
from introspan_collector.notify.notifier import Notifier
from introspan_collector.notify.targets import check_files
from introspan_collector.probe.job import ProbeJob
from introspan_collector.probe.report import ReportError, check
from introspan_collector.serving import HttpThread, load_http_token
from introspan_wire.v1 import observation_service_pb2 as pb

_log = structlog.get_logger(__name__)

_REMEMBERED_PRODUCERS = 100_000
_GRACE_SECONDS = 2.0
_DRAIN_SECONDS = 4.0
_DELIVERY_SECONDS = 10.0
# A second or so at full load: while a part of the archive is written, nothing is read.
_RECENT_BYTES = 32 * 2**20


class Pipeline:
    """accept → log → aggregate, archive, detect → expose, notify. Built from settings, started and drained once.

    Raises ConfigurationError for an address or a file that cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = _lock(settings)
        self._cursor_files = Disk(settings.data / "cursors")
        self._aggregator = Aggregator(settings.aggregate)
        self._archive = Archive(settings.data / "archive", settings.archive)
        branches = [Branch("archive", self._archive, self._archive.cursor())]
        self._checkpoints = [self._checkpoint("aggregate", self._aggregator, 0.0)]
        self._open_detection()
        branches += [Branch(one.name, one.consumer, one.start) for one in self._checkpoints]
        self._recent = Recent(_RECENT_BYTES)
        self._open_log(not_before=max(branch.start for branch in branches))
        self._open_feed(branches)
        self._open_intake()
        self._open_probe()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving = self._draining = False
        self._http = HttpThread(build(self._sources()), settings.http)
        self._server: AcceptServer | None = None

    def _open_feed(self, branches: list[Branch]) -> None:
        start = min(branch.start for branch in branches)
        self._reader = Reader(Disk(self._settings.data / "log"), start, self._recent)
        self._feed = Feed(
            self._reader,
            branches,
            log_end=lambda: self._appender.end,
            grown=self._committer.grown,
            upkeep={
                "archive": self._archive.flush_due,
                "detect": self._detector.advance,
                "checkpoint": self._save_decisions,
            },
            save=self._save,
            save_seconds=self._settings.checkpoint.interval_seconds,
        )

    def _sources(self) -> Sources:
        return Sources(
            aggregates=self._aggregator,
            archive=self._archive,
            stats=self.stats,
            ready=self._ready,
            detection=Report(self._detector),
            deliveries=self._notifier.stats,
            endpoints=self._probe.states,
            http_token=load_http_token(self._settings),
            runbook_url=self._settings.notify.runbook_url,
            trace_url=self._settings.trace_url,
        )

    def _open_detection(self) -> None:
        settings = self._settings
        try:
            check_files(settings.notify)
            self._notifier = Notifier(settings.data / "notify", settings.notify)
        except (ValueError, OSError) as error:
            raise ConfigurationError(f"notify cannot be used: {error}") from error
        self._detector = Detector(settings.detect, self._notifier.put, settings.notify.links)
        if settings.detect.enabled:
            checkpoint = self._checkpoint("detect", self._detector, settings.detect.checkpoint_seconds)
            self._checkpoints.append(checkpoint)
        self._notifier.resume(self._detector.notices())

    def _open_probe(self) -> None:
        def deliver(frame: bytes) -> None:
            assert self._loop is not None, "asked only after the start"
            answer = asyncio.run_coroutine_threadsafe(self._intake.accept(frame), self._loop)
            try:
                check(answer.result(_DELIVERY_SECONDS))
            except (RefusalError, TimeoutError) as error:
                raise ReportError(f"the collector did not take a canary's answer: {error}") from error

        try:
            self._probe = ProbeJob(self._settings.canary, self._detector.wanted, deliver)
        except ValueError as error:
            raise ConfigurationError(f"canary: {error}") from error

    def _checkpoint(self, name: str, consumer: Checkpointed, interval_seconds: float) -> Checkpoint:
        return Checkpoint(name, consumer, self._cursor_files, interval_seconds)

    def _open_log(self, not_before: int) -> None:
        log = self._settings.log
        self._sequences = Sequences(_REMEMBERED_PRODUCERS)
        self._retention = Retention(max_bytes=log.max_bytes, max_age_seconds=log.max_age_seconds)
        self._appender = Appender(
            Disk(self._settings.data / "log"),
            self._sequences,
            self._retention,
            segment_bytes=log.segment_bytes,
            sync_each=log.commit == "group",
            not_before=not_before,
            recent=self._recent,
        )
        self._committer = Committer(
            self._appender,
            self._sequences,
            interval_seconds=None if log.commit == "group" else log.commit_interval_seconds,
        )

    def _open_intake(self) -> None:
        accept, log = self._settings.accept, self._settings.log
        self._pressure = Pressure(
            max_pending_bytes=accept.max_pending_bytes,
            max_lag_bytes=log.max_bytes // 2,
            max_resident_bytes=accept.max_resident_bytes,
            lag_bytes=lambda: self._feed.lag_bytes,
        )
        self._limits = ProducerLimits(
            bytes_per_second=accept.producer_bytes_per_second,
            burst_bytes=accept.producer_burst_bytes,
            max_producers=accept.max_producers,
        )
        self._intake = Intake(
            self._committer,
            self._pressure,
            self._limits,
            directives=_directives(self._settings),
            max_request_bytes=accept.max_request_bytes,
        )

    async def start(self) -> tuple[int, int]:
        """Begins to accept and to expose; returns the ports of gRPC and HTTP."""
        accept = self._settings.accept
        try:
            self._server = AcceptServer(
                self._intake,
                self._settings.grpc,
                max_request_bytes=accept.max_request_bytes,
                tls=load_tls(accept),
                bearer_token=load_token(accept),
            )
        except RuntimeError as error:
            raise ConfigurationError(
                f"grpc = {self._settings.grpc} cannot be bound: {error}; choose a free address"
            ) from error
        self._notifier.start()
        self._feed.start()
        self._http.start()
        await self._server.start()
        self._loop = asyncio.get_running_loop()
        self._probe.start()
        self._serving = True
        return self._server.port, self._http.port

    async def drain(self) -> None:
        """Stops accepting, answers what is under way, processes what is in the log and saves."""
        self._serving = False
        # What may hang waits side by side: all of it has ten seconds.
        await asyncio.gather(
            asyncio.to_thread(self._probe.stop, _GRACE_SECONDS),
            *([] if self._server is None else [self._server.drain(_GRACE_SECONDS)]),
        )
        await asyncio.to_thread(self._committer.close)
        self._draining = True
        await asyncio.to_thread(self._feed.stop, _DRAIN_SECONDS)
        await asyncio.gather(
            asyncio.to_thread(self._notifier.stop, _GRACE_SECONDS),
            asyncio.to_thread(self._archive.flush),
            asyncio.to_thread(self._http.stop),
        )
        self._lock.close()

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
            failures=dict(feed.failures),
            skewed_segments=intake.skewed_segments,
            unknown_columns=intake.unknown_columns,
            rejected_segments=intake.rejected_segments,
            producers=len(self._limits),
            evicted_producers=self._sequences.evicted,
            processed_batches=feed.processed_batches,
            pending_bytes=self._pressure.pending_bytes,
            log_bytes=self._retention.log_bytes,
            log_limit_bytes=self._settings.log.max_bytes,
            log_segments=self._retention.log_segments,
            lag_bytes=feed.lag_bytes,
            lag_limit_bytes=self._pressure.max_lag_bytes,
            lag_seconds=feed.lag_seconds,
            syncs=appender.syncs,
            sync_seconds=appender.sync_seconds,
            write_errors=self._committer.write_errors,
            torn_bytes=appender.torn_bytes,
            corrupt_bytes=self._reader.corrupt_bytes,
            expired_bytes=self._reader.expired_bytes,
            checkpoint_age_seconds=time.monotonic() - feed.saved_at,
            consumer_cpu_seconds=dict(feed.cpu_seconds),
        )

    def _ready(self) -> bool:
        # Without the one thread no batch is answered, without the other none is processed.
        return self._serving and self._committer.alive and self._feed.alive

    def _save(self, offset: int) -> None:
        for checkpoint in self._checkpoints:
            decided = checkpoint.consumer is self._detector and self._detector.decided
            checkpoint.save(offset, at_once=self._draining or decided)

    def _save_decisions(self) -> None:
        """What people decided is in no log that could be read again."""
        if self._detector.decided and self._settings.detect.enabled:
            self._save(self._reader.offset)


def _lock(settings: Settings) -> IO[str]:
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
        file = (settings.data / "lock").open("w", encoding="ascii")
    except OSError as error:
        raise ConfigurationError(
            f"data = {settings.data} cannot be written: {error.strerror}; choose a folder that can"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ConfigurationError(
            f"data = {settings.data} is in use by another collector; stop it or choose another folder"
        ) from error
    return file


def _directives(settings: Settings) -> pb.Directives | None:
    accept = settings.accept
    if accept.max_sampling_probability is None and not accept.capture_off:
        return None
    return pb.Directives(
        max_sampling_probability=accept.max_sampling_probability, capture_off=accept.capture_off
    )

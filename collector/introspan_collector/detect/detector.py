"""Batches of the log in; alarms, incidents and what people are told out: the order of everything in detection."""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.announcer import Announcer
from introspan_collector.detect.canary.round import Round
from introspan_collector.detect.comparisons import compare
from introspan_collector.detect.decisions import Decisions
from introspan_collector.detect.growth import Growth
from introspan_collector.detect.incident.finding import Copy, Finding, Subject
from introspan_collector.detect.incident.incident import Acknowledgement
from introspan_collector.detect.incident.incidents import Event, Incidents
from introspan_collector.detect.incident.maintenance import Window
from introspan_collector.detect.knowledge import Knowledge, Pieces
from introspan_collector.detect.live.nulls import impossible
from introspan_collector.detect.reference.builder import Progress
from introspan_collector.detect.reference.reference import Identity, Reference
from introspan_collector.detect.rounds import Rounds
from introspan_collector.detect.rules import impossible_finding, reprefill_finding
from introspan_collector.detect.sample import Sample, samples
from introspan_collector.detect.sequential.alarm import Alarm
from introspan_collector.detect.settings import DetectSettings
from introspan_collector.detect.watch import Watch
from introspan_collector.detect.wholes import Whole
from introspan_collector.model import Batch, Origin
from introspan_collector.notice import Links, Notice
from introspan_wire.codec import SegmentTable
from introspan_wire.signals import Kind

_BET_SECONDS = 1.0


class Still(NamedTuple):
    """Everything that the detector knows, while it stands still. asked: models whose canary is asked at once."""

    pieces: Pieces
    watches: Mapping[Subject, Watch]
    asked: frozenset[str]


class Detector:
    """Follows every model and adapter. Safe to read, and to be told decisions of people, from other threads.

    tell takes what people are to be told. Time is the collector's own: a producer's wrong clock moves nothing.
    """

    def __init__(
        self,
        settings: DetectSettings | None = None,
        tell: Callable[[Notice], None] = lambda _: None,
        links: Links = Links(),  # noqa: B008 - an immutable value
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings or DetectSettings()
        self._tell = tell
        self._links = links
        self._clock = clock
        self._lock = threading.RLock()
        self._start(Knowledge(self._settings))

    def consume(self, batch: Batch) -> None:
        """Takes one batch, in log order."""
        with self._lock:
            self._pieces.canaries.consume(batch)
            self._compare(self._pieces.wholes.take(batch, int(self._clock() * 1e9)))
            for table in batch.tables:
                if table.schema.kind is not Kind.REPREFILL:
                    self._see_alone(batch.origin, table)
            self._bet(batch)

    def advance(self) -> None:
        """Does what is due by now: closes ticks and rounds, raises and ends incidents, builds references."""
        with self._lock:
            now = self._clock()
            self._compare(self._pieces.wholes.late(int(now * 1e9)))
            for finished in self._pieces.canaries.advance(int(now * 1e9)):
                self._judge(finished, now)
            tick = self._pieces.ticks.close(now)
            # Of a clock that was set back nobody waits until it has caught up: what counts is how far off it is.
            if tick is not None or abs(now - self._knowledge.updated_unix_seconds) >= _BET_SECONDS:
                self._knowledge.updated_unix_seconds = now
                self._update(self._nothing() if tick is None else tick.x, now)
            if tick is not None:
                self._close_tick()
            self._announcer.announce(self.incidents.tick(now))
            self._knowledge.sweep(now)
            grown = self._growth.look(now)
            if grown is not None:
                self._decisions.take_up(grown, now)

    @property
    def incidents(self) -> Incidents:
        """The book of incidents."""
        return self._pieces.incidents

    @property
    def opened(self) -> Counter[tuple[str, str, str]]:
        """Incidents that began since the start, by model, adapter and name of the alert."""
        return self._announcer.opened

    def wanted(self, model: str) -> bool:
        """Whether the canary of a model should be asked at once."""
        with self._lock:
            return model in self._announcer.asked or self._pieces.canaries.wanted(model)

    def progress(self) -> dict[Subject, dict[Identity, Progress]]:
        """How far references are that are being built."""
        with self._lock:
            return {subject: watch.progress() for subject, watch in self._knowledge.watches.items()}

    def notices(self) -> list[Notice]:
        """What people are being told: a notice of each open incident that they have been told of."""
        return [self._announcer.notice(one) for one in self.incidents.open() if one.notified]

    @contextmanager
    def still(self) -> Iterator[Still]:
        """What there is to see, unchanged for as long as it is looked at: be quick, the log waits."""
        with self._lock:
            yield Still(self._pieces, self._knowledge.watches, frozenset(self._announcer.asked))

    @property
    def decided(self) -> bool:
        """Whether people decided something, which is in no log, since the state was last saved."""
        return self._decisions.unsaved

    def announce(self, window: Window) -> None:
        """Records a deploy. Raises ValueError where too many are announced."""
        with self._lock:
            self._decisions.announce(window)

    def withdraw(self, id_: str) -> None:
        """Forgets an announced deploy. Raises ValueError for one that is not announced."""
        with self._lock:
            self._decisions.withdraw(id_)

    def acknowledge(self, id_: str, acknowledgement: Acknowledgement, *, force: bool = False) -> str:
        """Records who looks after an incident; what is done where it is accepted as healthy, in words.

        Raises ValueError for an incident that is not open; and, unless forced, where a reference would be promoted
        that something speaks against.
        """
        with self._lock:
            return self._decisions.acknowledge(id_, acknowledgement, force=force)

    def promote(self, subject: Subject, *, force: bool = False) -> Reference:
        """Makes what was collected last the frozen reference.

        Raises ValueError where there is too little of it; and, unless forced, where something speaks against it.
        """
        with self._lock:
            return self._decisions.promote(subject, force=force)

    def adopt(self, reference: Reference) -> None:
        """Compares with a reference from elsewhere. Raises ValueError for one that is not of what is served."""
        with self._lock:
            self._decisions.adopt(reference)

    def promote_canary(self, model: str) -> None:
        """Makes the rounds gathered since a model changed its baseline. Raises ValueError where there are too few."""
        with self._lock:
            self._decisions.promote_canary(model)

    def snapshot(self) -> bytes:
        """The whole state."""
        with self._lock:
            self._decisions.unsaved = False
            return self._knowledge.snapshot()

    def restore(self, state: bytes) -> None:
        """Puts a snapshot's state in place of this one, which stays if it cannot be read: that raises ValueError."""
        knowledge = Knowledge(self._settings)
        knowledge.restore(state)
        with self._lock:
            self._start(knowledge)

    def _start(self, knowledge: Knowledge) -> None:
        self._knowledge = knowledge
        self._pieces = knowledge.pieces
        self._growth = Growth(knowledge)
        self._announcer = Announcer(self._tell, self._links, self._clock)
        for incident in self.incidents.open():
            if incident.asked_unix_seconds is not None:
                self._announcer.ask(incident.subject.model)
        self._decisions = Decisions(
            knowledge,
            self._announcer,
            self._settings.subject_limit,
            self._clock,
            lambda model: self._growth.against(model, self._clock()),
        )
        self._rounds = Rounds(knowledge, self._growth, self._announcer, self._settings.quiet_requests)
        self._impossible: dict[Subject, float] = {}
        self.unwatched_requests = 0
        """Requests of models and adapters beyond subject_limit."""

    def _compare(self, wholes: Iterable[Whole]) -> None:
        # A request's prompt row says which class its decoded rows belong to.
        for whole in sorted(wholes, key=lambda one: one.table.schema.kind is not Kind.PROMPT):
            if whole.table.schema.kind is Kind.REPREFILL:
                for judged in compare(self._knowledge, whole, self._growth.is_healthy):
                    self._take(reprefill_finding(judged, self._clock()))
                continue
            for adapter, sample in samples(whole.table, whole.received_unix_nano):
                self._see(whole.origin, adapter, sample)

    def _see(self, origin: Origin, adapter: str, sample: Sample) -> None:
        subject = Subject(origin.model, adapter)
        watches = self._knowledge.watches
        if subject not in watches and len(watches) >= self._settings.subject_limit:
            self.unwatched_requests += len(sample) if sample.kind is Kind.PROMPT else 0
            return
        watch = self._knowledge.hear(subject)
        if sample.kind is Kind.PROMPT:
            self._knowledge.count(subject, len(sample))
        is_healthy = self._growth.is_healthy(subject)
        seen = watch.see(Identity.of(origin, adapter), sample, origin.replica, is_healthy=is_healthy)
        self._knowledge.add(seen.evidence, tickets_only=watch.is_provisional)
        if seen.exemplar is not None:
            self._knowledge.remember(subject, seen.exemplar)

    def _bet(self, batch: Batch) -> None:
        """What the tokens say that a producer drew since its last message: they need no reference."""
        growth = self._pieces.draws.growth(batch)
        if growth is not None and any(one.model == batch.origin.model for one in self._knowledge.watches):
            self._knowledge.bet(growth)

    def _see_alone(self, origin: Origin, table: SegmentTable) -> None:
        """What needs no reference, of every segment of a table."""
        adapters = np.array(table.adapter)
        now = self._clock()
        for adapter in sorted(set(table.adapter)):
            subject = Subject(origin.model, adapter)
            if subject not in self._knowledge.watches:
                continue
            rows = np.flatnonzero(adapters == adapter)
            who = (origin.model, origin.replica, adapter)
            found = impossible(table, rows, *who)
            # Once it is said, saying it for each of thousands of rows would only cost time.
            if found and abs(now - self._impossible.get(subject, -math.inf)) >= _BET_SECONDS:
                self._impossible[subject] = now
                self._take(impossible_finding(found, table, now))

    def _close_tick(self) -> None:
        """What only a whole tick shows becomes evidence of the next."""
        now = self._clock()
        for watch in self._knowledge.watches.values():
            self._knowledge.add(tuple(watch.tick(now)), tickets_only=watch.is_provisional)

    def _nothing(self) -> NDArray[np.float64]:
        return np.full(len(self._pieces.ticks.streams), np.nan)

    def _update(self, x: NDArray[np.float64], now: float) -> None:
        growth = self._pieces.bets.take()
        recoveries, requests = self._knowledge.recoveries, self._knowledge.requests
        for subject, recovery in list(recoveries.items()):
            if recovery.update(x, requests.pop(subject, 0), now, growth):
                del recoveries[subject]
                self._announce(self.incidents.recovered(subject, now))
        for copy, detector in ((Copy.TICKET, self._pieces.ticket), (Copy.PAGE, self._pieces.page)):
            for alarm in detector.update(x, now, growth):
                self._take(self._finding(alarm, copy))
        requests.clear()
        # Those of other models wait for their own ticks.
        for model, adapter in self._pieces.roster.about(~np.isnan(x)):
            self._knowledge.exemplars.pop(Subject(model, adapter), None)

    def _finding(self, alarm: Alarm, copy: Copy) -> Finding:
        subject = Subject(alarm.model, alarm.adapter)
        watch = self._knowledge.watches.get(subject)
        return Finding(
            alarm,
            copy,
            reference="" if watch is None else watch.content_hash,
            exemplars=tuple(self._knowledge.exemplars.get(subject, ())),
        )

    def _take(self, finding: Finding) -> None:
        self._knowledge.recover_from(finding.alarm)
        self._announce(self.incidents.take(finding, finding.alarm.time_seconds))

    def _announce(self, events: list[Event]) -> None:
        self._decisions.reconsider(events)
        self._announcer.announce(events)

    def _judge(self, finished: Round, now: float) -> None:
        judged = self._rounds.judge(finished, now)
        if judged.requests:
            self._knowledge.count(Subject(finished.model, ""), judged.requests)
        if judged.finding is not None:
            self._take(judged.finding)

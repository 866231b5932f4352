"""Batches of the log in; alarms, incidents and what people are told out: the order of everything in detection."""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect import checkpoint
from introspan_collector.detect.alarm import Alarm, Carrier
from introspan_collector.detect.announcement import notice
from introspan_collector.detect.bets import Bets
from introspan_collector.detect.budget import shared_out
from introspan_collector.detect.builder import Limits, Progress
from introspan_collector.detect.canaries import DISTANCE, Canaries, Round
from introspan_collector.detect.canary import PAGE_RATIO, Comparison
from introspan_collector.detect.e_detector import EDetector
from introspan_collector.detect.evidence import Evidence, Stream
from introspan_collector.detect.finding import Copy, Exemplar, Finding, Subject
from introspan_collector.detect.incident import Acknowledgement
from introspan_collector.detect.incidents import Change, Event, Incidents
from introspan_collector.detect.nulls import impossible, uniformity
from introspan_collector.detect.reconsider import CanaryReport
from introspan_collector.detect.recovery import Recovery, RecoverySettings
from introspan_collector.detect.reference import Identity, Reference
from introspan_collector.detect.roster import Roster
from introspan_collector.detect.sample import Sample, samples
from introspan_collector.detect.settings import DetectSettings
from introspan_collector.detect.tick import Ticks, TickSettings
from introspan_collector.detect.triage import Canary
from introspan_collector.detect.watch import Watch
from introspan_collector.detect.yardstick import DETECTORS
from introspan_collector.model import Batch, Origin
from introspan_collector.notice import Notice
from introspan_wire.codec import SegmentTable
from introspan_wire.signals import Kind

_WHAT = "the detector"
_VERSION = 1
_DAY_SECONDS = 86_400.0
_EXEMPLARS = 5
_GROW_SECONDS = 10.0
_BET_SECONDS = 1.0
_CARRIERS = 16
_MOST_COUNTS = 1024


class _Piece(Protocol):
    """A part whose state is saved."""

    def snapshot(self) -> bytes: ...
    def restore(self, data: bytes, /) -> None: ...


class Pieces(NamedTuple):
    """The parts that there is one of."""

    ticks: Ticks
    bets: Bets
    ticket: EDetector
    page: EDetector
    incidents: Incidents
    canaries: Canaries
    roster: Roster

    def named(self) -> dict[str, _Piece]:
        """Each by its name."""
        return self._asdict()


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
        runbook_url: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings or DetectSettings()
        self._tell = tell
        self._runbook_url = runbook_url
        self._clock = clock
        self._lock = threading.RLock()
        self._grown_unix_seconds = self._updated_unix_seconds = 0.0
        self._start_empty()

    def consume(self, batch: Batch) -> None:
        """Takes one batch, in log order."""
        with self._lock:
            self._pieces.canaries.consume(batch)
            # A request's prompt row says which class its decoded rows belong to.
            tables = sorted(batch.tables, key=lambda table: table.schema.kind is not Kind.PROMPT)
            for table in tables:
                for adapter, sample in samples(table):
                    self._see(batch.origin, adapter, sample)
                if table.schema.kind is Kind.DECODED:
                    self._see_sampler(batch.origin, table)

    def advance(self) -> None:
        """Does what is due by now: closes ticks and rounds, raises and ends incidents, builds references."""
        with self._lock:
            now = self._clock()
            for finished in self._pieces.canaries.advance(int(now * 1e9)):
                self._judge(finished, now)
            tick = self._pieces.ticks.close(now)
            if tick is not None or now - self._updated_unix_seconds >= _BET_SECONDS:
                self._updated_unix_seconds = now
                self._update(self._nothing() if tick is None else tick.x, now)
            if tick is not None:
                self._close_tick()
            self._announce(self._pieces.incidents.tick(now))
            if now - self._grown_unix_seconds >= _GROW_SECONDS:
                self._grown_unix_seconds = now
                self._grow(now)

    @property
    def incidents(self) -> Incidents:
        """The book of incidents."""
        return self._pieces.incidents

    def wanted(self, model: str) -> bool:
        """Whether the canary of a model should be asked at once."""
        with self._lock:
            return model in self._asked or self._pieces.canaries.wanted(model)

    def progress(self) -> dict[Subject, dict[Identity, Progress]]:
        """How far references are that are being built."""
        with self._lock:
            return {subject: watch.progress() for subject, watch in self._watches.items()}

    def notices(self) -> list[Notice]:
        """What people are being told: a notice of each open incident that they have been told of."""
        return [notice(one, self._runbook_url) for one in self.incidents.open() if one.notified]

    @contextmanager
    def still(self) -> Iterator[Still]:
        """What there is to see, unchanged for as long as it is looked at: be quick, the log waits."""
        with self._lock:
            yield Still(self._pieces, self._watches, frozenset(self._asked))

    def acknowledge(self, id_: str, acknowledgement: Acknowledgement) -> str:
        """Records who looks after an incident; what is done where it is accepted as healthy, in words.

        Raises ValueError for an incident that is not open.
        """
        with self._lock:
            event = self._pieces.incidents.acknowledge(id_, acknowledgement)
            self._announce([event])
            return self._accept(event.incident.subject) if acknowledgement.accept_as_class else ""

    def promote(self, subject: Subject) -> Reference:
        """Makes what was collected last the frozen reference. Raises ValueError where there is too little of it."""
        with self._lock:
            reference = self._watch(subject).promote(self._clock())
            self._took_up(subject, self._clock())
            return reference

    def adopt(self, reference: Reference) -> None:
        """Compares with a reference from elsewhere. Raises ValueError for one that is not of what is served."""
        identity = reference.identity
        subject = Subject(identity.model, identity.adapter)
        with self._lock:
            watch = self._watches.get(subject)
            served = None if watch is None else watch.served
            if served is not None and (differences := identity.differences(served)):
                raise ValueError(
                    f"reference is not of what is served: {'; '.join(differences)}; import one of this model, "
                    "or build one"
                )
            if watch is None and len(self._watches) >= self._settings.subject_limit:
                raise ValueError(
                    f"{len(self._watches)} models and adapters are watched, as many as detect.subject_limit: raise it"
                )
            self._watches.setdefault(subject, Watch(self._limits)).adopt(reference)
            self._took_up(subject, self._clock())

    def promote_canary(self, model: str) -> None:
        """Makes the rounds gathered since a model changed its baseline. Raises ValueError where there are too few."""
        with self._lock:
            self._pieces.canaries.promote(model)
            self._asked[model] = self._clock()
            self._pieces.roster.drop(model, "", ("canary",))
            self._follow()
            subject = Subject(model, "")
            opened = (one for one in self.incidents.open() if one.subject == subject)
            about = {clue.stream.detector for one in opened for clue in one.evidence}
            if about == {"canary"}:
                self._recoveries.pop(subject, None)
                self._announce(
                    self._pieces.incidents.promote(subject, "the canary's baseline", self._clock())
                )

    def snapshot(self) -> bytes:
        """The whole state."""
        with self._lock:
            parts = {name: piece.snapshot() for name, piece in self._pieces.named().items()}
            parts |= {f"watch_{i}": watch.snapshot() for i, watch in enumerate(self._watches.values())}
            parts |= {f"recovery_{i}": one.snapshot() for i, one in enumerate(self._recoveries.values())}
            header = {"watches": list(self._watches), "recoveries": list(self._recoveries)}
            arrays = {name: np.frombuffer(data, np.uint8) for name, data in parts.items()}
            return checkpoint.dump(_WHAT, _VERSION, header, arrays)

    def restore(self, state: bytes) -> None:
        """Puts a snapshot's state in place of this one. Raises ValueError for one that it cannot read."""
        header, arrays = checkpoint.load(_WHAT, _VERSION, state)
        with self._lock:
            self._start_empty()
            for name, piece in self._pieces.named().items():
                piece.restore(arrays[name].tobytes())
            self._followed = self._pieces.roster.version
            for i, subject in enumerate(header["watches"]):
                self._watches[Subject(*subject)] = watch = Watch(self._limits)
                watch.restore(arrays[f"watch_{i}"].tobytes())
            for i, subject in enumerate(header["recoveries"]):
                recovery = Recovery(_placeholder(Subject(*subject)), self._recovery)
                recovery.restore(arrays[f"recovery_{i}"].tobytes())
                recovery.follow(self._pieces.roster.streams, self._pieces.roster.bound)
                self._recoveries[Subject(*subject)] = recovery

    def _start_empty(self) -> None:
        settings = self._settings
        self._limits = Limits(settings.provisional_clusters, settings.frozen_clusters, settings.frozen_hours)
        self._recovery = RecoverySettings(
            settings.quiet_seconds, settings.quiet_requests, settings.ticket_days * _DAY_SECONDS
        )
        self._pieces = Pieces(
            Ticks(TickSettings(settings.tick_seconds, max(600.0, settings.tick_seconds))),
            Bets(),
            EDetector(settings.ticket_days * _DAY_SECONDS),
            EDetector(settings.page_days * _DAY_SECONDS),
            Incidents(),
            Canaries(settings.canary_rounds),
            Roster(),
        )
        self._followed = 0
        self._watches: dict[Subject, Watch] = {}
        self._recoveries: dict[Subject, Recovery] = {}
        self._requests: dict[Subject, int] = {}
        self._exemplars: dict[Subject, list[Exemplar]] = {}
        self._asked: dict[str, float] = {}
        self._impossible: dict[Subject, float] = {}
        self.unwatched_requests = 0
        """Requests of models and adapters beyond subject_limit."""
        self.opened: Counter[tuple[str, str, str]] = Counter()
        """Incidents that began since the start, by model, adapter and name of the alert."""

    def _watch(self, subject: Subject) -> Watch:
        watch = self._watches.get(subject)
        if watch is None:
            raise ValueError(f"nothing was heard of {subject}: list the references and take one of those")
        return watch

    def _accept(self, subject: Subject) -> str:
        """Learns what is served as healthy, by whichever way there is."""
        watch = self._watches.get(subject)
        if watch is None:
            return (
                f"nothing is learnt: no request of {subject} was seen, so that there is no reference to widen"
            )
        present, building = watch.reference, watch.building()
        is_another = bool(building) and present is not None and building[-1].identity != present.identity
        if is_another and building[-1].progress.reached is not None:
            self.promote(subject)
            return "the reference that was being built of what is served now was promoted"
        more = watch.accept()
        return (
            f"requests enter the next reference from now on; it is taken up after {more} more clusters, "
            "once canaries are clean, and ends the incident"
        )

    def _took_up(self, subject: Subject, now: float) -> None:
        """Has everything follow from a subject's new reference: old evidence is about the old one."""
        self._pieces.roster.drop(*subject, DETECTORS)
        self._follow()
        self._recoveries.pop(subject, None)
        self._exemplars.pop(subject, None)
        self._announce(self._pieces.incidents.promote(subject, self._watches[subject].content_hash, now))

    def _see(self, origin: Origin, adapter: str, sample: Sample) -> None:
        subject = Subject(origin.model, adapter)
        watch = self._watches.get(subject)
        if watch is None:
            if len(self._watches) >= self._settings.subject_limit:
                self.unwatched_requests += len(sample)
                return
            watch = self._watches[subject] = Watch(self._limits)
        if sample.kind is Kind.PROMPT:
            self._requests[subject] = self._requests.get(subject, 0) + len(sample)
        found = impossible(sample, origin.model, origin.replica, adapter)
        now = self._clock()
        # Once it is said, saying it for each of thousands of rows would only cost time.
        if found and now - self._impossible.get(subject, -math.inf) >= _BET_SECONDS:
            self._impossible[subject] = now
            self._take(_impossible(found, sample, now))
        is_healthy = subject not in self._recoveries
        seen = watch.see(Identity.of(origin, adapter), sample, origin.replica, is_healthy=is_healthy)
        for evidence in seen.evidence:
            self._add(evidence, tickets_only=watch.is_provisional)
        if seen.exemplar is not None:
            kept = [*self._exemplars.get(subject, ()), seen.exemplar]
            self._exemplars[subject] = sorted(kept, key=lambda one: -one.score)[:_EXEMPLARS]

    def _see_sampler(self, origin: Origin, table: SegmentTable) -> None:
        adapters = np.array(table.adapter)
        for adapter in sorted(set(table.adapter)):
            if Subject(origin.model, adapter) not in self._watches:
                continue
            rows = np.flatnonzero(adapters == adapter)
            evidence = uniformity(table, rows, origin.model, origin.replica, adapter)
            at = self._pieces.roster.rows(evidence)
            self._follow()
            self._pieces.bets.add(at, evidence.x, evidence.bound)

    def _add(self, evidence: Evidence, *, tickets_only: bool = False) -> None:
        rows = self._pieces.roster.rows(evidence, tickets_only=tickets_only)
        self._follow()
        self._pieces.ticks.add(rows, evidence.cluster[:, None], evidence.x)

    def _follow(self) -> None:
        """Has all parts follow the streams that there are now."""
        if self._followed == self._pieces.roster.version:
            return
        self._followed = self._pieces.roster.version
        streams, bound, page_bound = (
            self._pieces.roster.streams,
            self._pieces.roster.bound,
            self._pieces.roster.page_bound,
        )
        self._pieces.ticks.follow(streams, self._pieces.roster.fewest_clusters)
        self._pieces.bets.follow(streams)
        self._pieces.ticket.follow(streams, bound, shared_out(streams, bound))
        self._pieces.page.follow(streams, page_bound, shared_out(streams, page_bound))
        for recovery in self._recoveries.values():
            recovery.follow(streams, bound)

    def _close_tick(self) -> None:
        """What only a whole tick shows becomes evidence of the next."""
        for watch in self._watches.values():
            for evidence in watch.tick():
                self._add(evidence, tickets_only=watch.is_provisional)

    def _nothing(self) -> NDArray[np.float64]:
        return np.full(len(self._pieces.ticks.streams), np.nan)

    def _update(self, x: NDArray[np.float64], now: float) -> None:
        growth = self._pieces.bets.take()
        for subject, recovery in list(self._recoveries.items()):
            if recovery.update(x, self._requests.pop(subject, 0), now, growth):
                del self._recoveries[subject]
                self._announce(self._pieces.incidents.recovered(subject, now))
        for copy, detector in ((Copy.TICKET, self._pieces.ticket), (Copy.PAGE, self._pieces.page)):
            for alarm in detector.update(x, now, growth):
                self._take(self._finding(alarm, copy))
        self._requests.clear()
        if not np.isnan(x).all():
            self._exemplars.clear()

    def _finding(self, alarm: Alarm, copy: Copy) -> Finding:
        subject = Subject(alarm.model, alarm.adapter)
        watch = self._watches.get(subject)
        return Finding(
            alarm,
            copy,
            reference="" if watch is None else watch.content_hash,
            exemplars=tuple(self._exemplars.get(subject, ())),
        )

    def _take(self, finding: Finding) -> None:
        subject = Subject(finding.alarm.model, finding.alarm.adapter)
        recovery = self._recoveries[subject] = Recovery(finding.alarm, self._recovery)
        recovery.follow(self._pieces.roster.streams, self._pieces.roster.bound)
        self._announce(self._pieces.incidents.take(finding, finding.alarm.time_seconds))

    def _judge(self, finished: Round, now: float) -> None:
        self._asked.pop(finished.model, None)
        found = finished.comparison
        if found is None:
            return
        evidence = self._pieces.canaries.evidence(finished)
        if evidence is not None:
            self._add(evidence)
        moved = found.deviates and not found.equivalent
        state = Canary.MOVED if moved else Canary.STILL
        report = CanaryReport(finished.model, finished.replica, state, now, found.place if moved else "")
        self._announce(self._pieces.incidents.hear(report, now))
        if finished.pages:
            self._take(_canary_finding(finished, found, now))

    def _grow(self, now: float) -> None:
        last = {finished.model: finished for finished in self._pieces.canaries.last()}
        for subject, watch in self._watches.items():
            if subject in self._recoveries and watch.accepting is None:
                continue
            finished = last.get(subject.model)
            found = None if finished is None else finished.comparison
            reference = watch.grow(
                now,
                canaries_clean=found is None or not found.deviates,
                may_succeed=found is None or not found.deviates or found.equivalent,
            )
            if reference is not None:
                self._took_up(subject, now)

    def _announce(self, events: Iterable[Event]) -> None:
        for event in events:
            self._count(event)
            if event.ask_canary:
                self._asked[event.incident.subject.model] = self._clock()
            if event.incident.notified:
                self._tell(notice(event.incident, self._runbook_url))

    def _count(self, event: Event) -> None:
        incident = event.incident
        # One that opened during a deploy opens for people again when that is over.
        if event.change is Change.OPENED and incident.notified == (not incident.maintenance):
            key = (*incident.subject, incident.alertname)
            self.opened[key if key in self.opened or len(self.opened) < _MOST_COUNTS else ("other",) * 3] += 1


def _impossible(found: list[tuple[Stream, int]], sample: Sample, now: float) -> Finding:
    stream, row = found[0]
    carriers = tuple(Carrier(one, 1.0 / len(found)) for one, _ in found[:_CARRIERS])
    alarm = Alarm(stream.model, stream.adapter, now, math.inf, math.inf, carriers)
    where = f" at layer {stream.layer}" if stream.layer >= 0 else ""
    more = f", nor are {len(found) - 1} more signals" if len(found) > 1 else ""
    sentence = (
        f"{stream.signal}{where} is not zero on {stream.replica}{more}: a healthy server never shows this."
    )
    trace = sample.trace_id[row].tobytes().hex() if sample.trace_id[row].any() else ""
    exemplar = Exemplar(sample.request_id[row], trace, stream.replica, stream.signal, 0.0, "p")
    return Finding(alarm, Copy.PAGE, sentence, replicas=(stream.replica,), exemplars=(exemplar,))


def _canary_finding(finished: Round, found: Comparison, now: float) -> Finding:
    stream = Stream(finished.model, finished.replica, "", "canary", "", DISTANCE, -1, "high")
    level = math.log10(max(found.ratio / PAGE_RATIO, 1.0))
    alarm = Alarm(finished.model, "", now, level, math.inf, (Carrier(stream, 1.0),))
    place = f", beginning at {found.place}" if found.place else ""
    flipped = f"{found.flipped} greedy tokens flipped, " if found.flipped else ""
    sentence = (
        f"The canary on {finished.replica} is {found.ratio:.1f} times as far off as chance explains, in "
        f"{finished.in_a_row} rounds in a row{place}: {flipped}divergence of the output {found.kl_nats:.2g} nats, "
        f"same likeliest token at {found.top1:.1%} of positions."
    )
    return Finding(alarm, Copy.PAGE, sentence, layer=found.place, replicas=(finished.replica,))


def _placeholder(subject: Subject) -> Alarm:
    return Alarm(subject.model, subject.adapter, 0.0, 0.0, math.inf, ())

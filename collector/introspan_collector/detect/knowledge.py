"""Evidence in, one state of everything out: the parts that there is one of, and what is known of each model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect import checkpoint
from introspan_collector.detect.canary.rounds import Canaries
from introspan_collector.detect.incident.finding import Exemplar, Subject
from introspan_collector.detect.incident.incidents import Incidents
from introspan_collector.detect.live.draws import Draws
from introspan_collector.detect.live.reprefill import Reprefill
from introspan_collector.detect.reference.builder import Limits
from introspan_collector.detect.reference.reference import State
from introspan_collector.detect.sequential.alarm import Alarm
from introspan_collector.detect.sequential.bets import Bets
from introspan_collector.detect.sequential.budget import shared_out
from introspan_collector.detect.sequential.e_detector import EDetector
from introspan_collector.detect.sequential.evidence import Evidence, Growth
from introspan_collector.detect.sequential.recovery import Recovery, RecoverySettings
from introspan_collector.detect.sequential.roster import Roster
from introspan_collector.detect.sequential.tick import Ticks, TickSettings
from introspan_collector.detect.settings import DetectSettings
from introspan_collector.detect.watch import Watch
from introspan_collector.detect.wholes import Wholes

_WHAT = "the detector"
_VERSION = 2
_DAY_SECONDS = 86_400.0
_LONGEST_WAIT_SECONDS = 600.0
_EXEMPLARS = 5


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
    reprefill: Reprefill
    draws: Draws
    wholes: Wholes

    def named(self) -> dict[str, _Piece]:
        """Each by its name."""
        return self._asdict()


class Knowledge:
    """Everything that outlives the process. Not safe to use from two threads.

    exemplars: requests of the last tick that are least like healthy ones; requests: how many came since the test was
    last updated, and when that was.
    """

    def __init__(self, settings: DetectSettings) -> None:
        self.limits = Limits(settings.provisional_clusters, settings.frozen_clusters, settings.frozen_hours)
        self._recovery = RecoverySettings(
            settings.quiet_seconds, settings.quiet_requests, settings.ticket_days * _DAY_SECONDS
        )
        longest_wait_seconds = max(_LONGEST_WAIT_SECONDS, settings.tick_seconds)
        self.pieces = Pieces(
            Ticks(TickSettings(settings.tick_seconds, longest_wait_seconds)),
            Bets(),
            EDetector(settings.ticket_days * _DAY_SECONDS),
            EDetector(settings.page_days * _DAY_SECONDS),
            Incidents(),
            Canaries(settings.canary_rounds),
            Roster(),
            Reprefill(settings.provisional_clusters),
            Draws(),
            Wholes(),
        )
        self.watches: dict[Subject, Watch] = {}
        self.recoveries: dict[Subject, Recovery] = {}
        self.exemplars: dict[Subject, list[Exemplar]] = {}
        self.requests: dict[Subject, int] = {}
        self.updated_unix_seconds = 0.0
        self._followed = 0
        self._heard: set[Subject] = set()
        self._unheard: set[Subject] = set()
        self._swept_unix_seconds: float | None = None

    def watch(self, subject: Subject) -> Watch:
        """That of a model and adapter. Raises ValueError for one that nothing was heard of."""
        watch = self.watches.get(subject)
        if watch is None:
            raise ValueError(f"nothing was heard of {subject}: list the references and take one of those")
        return watch

    def add(self, evidence: Sequence[Evidence], *, tickets_only: bool = False) -> None:
        """Takes evidence that ticks gather by cluster; tickets_only: it must not page."""
        roster = self.pieces.roster
        # All are taken up before any is numbered: each that is new moves those behind it.
        while True:
            version = roster.version
            rows = [roster.rows(one, tickets_only=tickets_only) for one in evidence]
            if roster.version == version:
                break
        self.follow()
        for one, at in zip(evidence, rows, strict=True):
            if at is not None:
                self.pieces.ticks.add(at, one.cluster[:, None], one.x)

    def bet(self, growth: Growth) -> None:
        """Takes evidence that needs no clusters, because it is independent of what came before."""
        at = self.pieces.roster.rows(growth)
        self.follow()
        if at is not None:
            self.pieces.bets.add(at, growth.log)

    def hear(self, subject: Subject) -> Watch:
        """The watch of a model and adapter that requests came from; a new one for a new one."""
        self._heard.add(subject)
        if subject not in self.watches:
            self.watches[subject] = Watch(self.limits)
        return self.watches[subject]

    def sweep(self, now: float) -> None:
        """Once a day forgets streams, models and adapters of which nothing came for a day or two.

        What has a frozen reference or an open incident is kept: floods of names that come once have neither.
        """
        if self._swept_unix_seconds is None or now < self._swept_unix_seconds:
            self._swept_unix_seconds = now
        if now - self._swept_unix_seconds < _DAY_SECONDS:
            return
        self._swept_unix_seconds = now
        heard, self._heard = self._heard, set()
        unheard = self.watches.keys() - heard - self.recoveries.keys()
        for subject in unheard & self._unheard:
            reference = self.watches[subject].reference
            if reference is None or reference.state is not State.FROZEN:
                del self.watches[subject]
        self._unheard = unheard
        self.pieces.roster.sweep()
        self.pieces.canaries.sweep()
        self.follow()

    def count(self, subject: Subject, requests: int) -> None:
        """Takes note of so many requests, for what waits for quiet ones."""
        self.requests[subject] = self.requests.get(subject, 0) + requests

    def remember(self, subject: Subject, exemplar: Exemplar) -> None:
        """Keeps a request if it is among those that are least like healthy ones."""
        kept = [*self.exemplars.get(subject, ()), exemplar]
        self.exemplars[subject] = sorted(kept, key=lambda one: -one.score)[:_EXEMPLARS]

    def recover_from(self, alarm: Alarm) -> None:
        """Waits from now on for what an alarm is about to be over."""
        subject = Subject(alarm.model, alarm.adapter)
        recovery = self.recoveries[subject] = Recovery(alarm, self._recovery)
        recovery.follow(self.pieces.roster.streams, self.pieces.roster.bound)

    def follow(self) -> None:
        """Has all parts follow the streams that there are now."""
        pieces, roster = self.pieces, self.pieces.roster
        if self._followed == roster.version:
            return
        self._followed = roster.version
        streams, bound, page_bound = roster.streams, roster.bound, roster.page_bound
        pieces.ticks.follow(streams, roster.fewest_clusters)
        pieces.bets.follow(streams)
        pieces.ticket.follow(streams, bound, shared_out(streams, bound))
        pieces.page.follow(streams, page_bound, shared_out(streams, page_bound))
        for recovery in self.recoveries.values():
            recovery.follow(streams, bound)

    def snapshot(self) -> bytes:
        """The whole state."""
        parts = {name: piece.snapshot() for name, piece in self.pieces.named().items()}
        parts |= {f"watch_{i}": watch.snapshot() for i, watch in enumerate(self.watches.values())}
        parts |= {f"recovery_{i}": one.snapshot() for i, one in enumerate(self.recoveries.values())}
        header = {
            "watches": list(self.watches),
            "recoveries": list(self.recoveries),
            "exemplars": [
                [subject, [asdict(one) for one in kept]] for subject, kept in self.exemplars.items()
            ],
            "requests": list(self.requests.items()),
            "updated_unix_seconds": self.updated_unix_seconds,
        }
        arrays = {name: np.frombuffer(data, np.uint8) for name, data in parts.items()}
        return checkpoint.dump(_WHAT, _VERSION, header, arrays)

    def restore(self, state: bytes) -> None:
        """Takes up a snapshot's state; nothing must be known yet. Raises ValueError for one that it cannot read."""
        header, arrays = checkpoint.load(_WHAT, _VERSION, state)
        try:
            self._restore(header, arrays)
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(
                f"checkpoint of {_WHAT} is of another version ({error!r}): delete it to start anew"
            ) from error

    # Any: as checkpoint.load gives them.
    def _restore(self, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        for name, piece in self.pieces.named().items():
            piece.restore(arrays[name].tobytes())
        roster = self.pieces.roster
        self._followed = roster.version
        for i, subject in enumerate(header["watches"]):
            self.watches[Subject(*subject)] = watch = Watch(self.limits)
            watch.restore(arrays[f"watch_{i}"].tobytes())
        for i, subject in enumerate(header["recoveries"]):
            recovery = Recovery(_placeholder(Subject(*subject)), self._recovery)
            recovery.restore(arrays[f"recovery_{i}"].tobytes())
            recovery.follow(roster.streams, roster.bound)
            self.recoveries[Subject(*subject)] = recovery
        self.exemplars = {
            Subject(*subject): [Exemplar(**one) for one in kept] for subject, kept in header["exemplars"]
        }
        self.requests = {Subject(*subject): count for subject, count in header["requests"]}
        self.updated_unix_seconds = header["updated_unix_seconds"]


def _placeholder(subject: Subject) -> Alarm:
    return Alarm(subject.model, subject.adapter, 0.0, 0.0, math.inf, ())

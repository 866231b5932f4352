"""Findings, canary reports and what people decide in; incidents that open, change and end out."""

import threading
import uuid
from collections import OrderedDict
from dataclasses import dataclass, replace
from enum import StrEnum

from introspan_collector.detect.incident.clues import with_finding
from introspan_collector.detect.incident.finding import Copy, Finding, Subject
from introspan_collector.detect.incident.incident import Acknowledgement, Incident, State, opened
from introspan_collector.detect.incident.maintenance import Window, announced, reason_at
from introspan_collector.detect.incident.reconsider import CanaryReport, reconsidered
from introspan_collector.detect.incident.record import Book, dump, load
from introspan_collector.detect.incident.settings import IncidentSettings
from introspan_collector.detect.incident.triage import Canary
from introspan_collector.notice import Severity

_MOST_REPORTS = 1024
_LONGEST_NAME = 200
_LONGEST_COMMENT = 2000


class Change(StrEnum):
    """What has happened to an incident."""

    OPENED = "opened"
    UPDATED = "updated"
    ESCALATED = "escalated"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Event:
    """A change and the incident after it. ask_canary: the canary of its model has to be asked now.

    People are told of it where incident.notified is set.
    """

    change: Change
    incident: Incident
    ask_canary: bool = False


class Incidents:
    """The book of incidents: open ones by model and adapter, and the last that are over.

    Times are seconds since 1970 as the caller has them. Methods may be called from several threads. name tells its
    incidents from those of other books; a checkpoint keeps it.
    """

    def __init__(self, settings: IncidentSettings | None = None, name: str | None = None) -> None:
        self._settings = settings or IncidentSettings()
        self._lock = threading.RLock()
        self._open: dict[Subject, Incident] = {}
        self._history: OrderedDict[str, Incident] = OrderedDict()
        self._reports: OrderedDict[tuple[str, str, str], CanaryReport] = OrderedDict()
        self._windows: tuple[Window, ...] = ()
        self._id = uuid.uuid4().hex if name is None else name
        self._begun = 0
        self.refused_findings = 0

    def take(self, finding: Finding, now_unix_seconds: float) -> list[Event]:
        """Opens an incident or adds to the one that is open.

        While as many are open as may be, a page takes the place of the ticket that opened first, and other findings
        are refused and counted: their evidence gathers anew and comes again if it is still there. More of the same is
        an event only every update_seconds: a fault that every request shows must not be told with every request.
        """
        with self._lock:
            subject = Subject(finding.alarm.model, finding.alarm.adapter)
            before = self._open.get(subject)
            events = []
            if before is None and len(self._open) >= self._settings.open_limit:
                events = self._make_room(finding, now_unix_seconds)
                if not events:
                    self.refused_findings += 1
                    return []
            incident = before or self._new(subject, finding, now_unix_seconds)
            escalated = finding.copy is Copy.PAGE and incident.severity is not Severity.CRITICAL
            incident = replace(
                with_finding(incident, finding),
                severity=Severity.CRITICAL if escalated else incident.severity,
                # What was acknowledged was less than this.
                state=State.OPEN if escalated else incident.state,
            )
            change = Change.OPENED if before is None else Change.ESCALATED if escalated else Change.UPDATED
            event = self._reconsider(incident, now_unix_seconds, change)
            if before is not None and not self._is_news(before, event, now_unix_seconds):
                return []
            return [*events, self._stamped(event, now_unix_seconds)]

    def recovered(self, subject: Subject, now_unix_seconds: float) -> list[Event]:
        """Ends the incident of a subject whose `Recovery`, begun anew at its last finding, says that it is over."""
        with self._lock:
            incident = self._open.get(subject)
            if incident is None:
                return []
            why = "Quiet since the last finding for as long as was asked for."
            if self._awaits_canary(incident):
                why += " No canary has found it still since then: ask one before you trust that."
            return [self._end(incident, why, now_unix_seconds)]

    def hear(self, report: CanaryReport, now_unix_seconds: float) -> list[Event]:
        """Takes a canary's report and reconsiders the incidents of its model."""
        with self._lock:
            about = (report.model, report.adapter, report.replica)
            self._reports[about] = report
            self._reports.move_to_end(about)
            while len(self._reports) > _MOST_REPORTS:
                self._reports.popitem(last=False)
            concerned = [one for one in self._open.values() if one.subject.model == report.model]
            return self._changed(concerned, now_unix_seconds)

    def tick(self, now_unix_seconds: float) -> list[Event]:
        """What time alone changes: canaries that did not answer, deploys that are over."""
        with self._lock:
            windows = (one for one in self._windows if one.end_unix_seconds > now_unix_seconds)
            self._windows = tuple(windows)
            waiting = [one for one in self._open.values() if one.asked_unix_seconds is not None]
            events = self._changed(waiting, now_unix_seconds)
            for incident in list(self._open.values()):
                if incident.notified or reason_at(self._windows, incident.subject.model, now_unix_seconds):
                    continue
                told = replace(incident, notified=True, updated_unix_seconds=now_unix_seconds)
                self._open[told.subject] = told
                events.append(Event(Change.OPENED, told))
            return events

    def promote(self, subject: Subject, reference: str, now_unix_seconds: float) -> list[Event]:
        """Ends the incident of a model and adapter that has a new reference, given by its content hash."""
        return self._close(subject, f"A new reference was promoted: {reference}.", now_unix_seconds)

    def acknowledge(self, id_: str, acknowledgement: Acknowledgement) -> Event:
        """Records who looks after an incident; the caller hands accept_as_class to whoever builds references.

        Raises ValueError for an incident that is not open and for a text that is too long.
        """
        _check_length("by", acknowledgement.by, 1, _LONGEST_NAME)
        _check_length("comment", acknowledgement.comment, 0, _LONGEST_COMMENT)
        with self._lock:
            incident = next((one for one in self._open.values() if one.id == id_), None)
            if incident is None:
                raise ValueError(
                    f"incident {id_!r} is not open: list the open ones and take one of their ids"
                )
            done = replace(
                incident,
                state=State.ACKNOWLEDGED,
                acknowledgement=acknowledgement,
                updated_unix_seconds=acknowledgement.time_unix_seconds,
            )
            self._open[done.subject] = done
            return Event(Change.ACKNOWLEDGED, done)

    def announce(self, window: Window, now_unix_seconds: float) -> None:
        """Records a deploy: incidents that begin in it are kept, and nobody is told while it lasts.

        Raises ValueError where too many are announced.
        """
        with self._lock:
            self._windows = announced(self._windows, window, now_unix_seconds)

    def withdraw(self, id_: str) -> None:
        """Forgets an announced deploy. Raises ValueError for one that is not announced."""
        with self._lock:
            kept = tuple(one for one in self._windows if one.id != id_)
            if len(kept) == len(self._windows):
                raise ValueError(
                    f"window {id_!r} is not announced: list the windows and take one of their ids"
                )
            self._windows = kept

    def windows(self) -> tuple[Window, ...]:
        """Announced deploys that were not over when last looked."""
        return self._windows

    def open(self) -> tuple[Incident, ...]:
        """Incidents that are not over, in the order in which they opened."""
        with self._lock:
            return tuple(self._open.values())

    def history(self) -> tuple[Incident, ...]:
        """The last incidents that are over, in the order in which they ended."""
        with self._lock:
            return tuple(self._history.values())

    def find(self, id_: str) -> Incident | None:
        """The incident of that id, if it is open or remembered."""
        with self._lock:
            return next((one for one in self._open.values() if one.id == id_), self._history.get(id_))

    def snapshot(self) -> bytes:
        """The whole state."""
        with self._lock:
            reports = tuple(self._reports.values())
            return dump(Book(self.open(), self.history(), self._windows, reports, self._id, self._begun))

    def restore(self, state: bytes) -> None:
        """Replaces the state by a snapshot. Raises ValueError for one that it cannot read."""
        book = load(state)
        with self._lock:
            self._open = {one.subject: one for one in book.open}
            self._history = OrderedDict((one.id, one) for one in book.history)
            self._windows = book.windows
            self._id, self._begun = book.id, book.begun
            self._reports = OrderedDict(((one.model, one.adapter, one.replica), one) for one in book.reports)

    def _awaits_canary(self, incident: Incident) -> bool:
        """Whether a canary deviated, and none of the model was still afterwards: traffic alone may not show a fault."""
        deviated = [clue.last_unix_seconds for clue in incident.evidence if clue.stream.detector == "canary"]
        return bool(deviated) and not any(
            one.model == incident.subject.model
            and one.state is Canary.STILL
            and one.time_unix_seconds >= max(deviated)
            for one in self._reports.values()
        )

    def _make_room(self, finding: Finding, now_unix_seconds: float) -> list[Event]:
        tickets = (one for one in self._open.values() if one.severity is Severity.WARNING)
        oldest = next(tickets, None)
        if finding.copy is not Copy.PAGE or oldest is None:
            return []
        return [self._end(oldest, "Gave way to a page: too many incidents are open.", now_unix_seconds)]

    def _close(self, subject: Subject, why: str, now_unix_seconds: float) -> list[Event]:
        with self._lock:
            incident = self._open.get(subject)
            return [] if incident is None else [self._end(incident, why, now_unix_seconds)]

    def _new(self, subject: Subject, finding: Finding, now_unix_seconds: float) -> Incident:
        maintenance = reason_at(self._windows, subject.model, now_unix_seconds)
        self._begun += 1
        return opened(subject, finding, now_unix_seconds, maintenance, self._id, self._begun)

    def _reconsider(self, incident: Incident, now_unix_seconds: float, change: Change) -> Event:
        reports = (one for one in self._reports.values() if one.model == incident.subject.model)
        settings = self._settings
        incident = reconsidered(
            incident, reports, settings.answer_seconds, settings.canary_fresh_seconds, now_unix_seconds
        )
        ask = incident.triage.ask_canary
        if ask:
            incident = replace(incident, asked_unix_seconds=now_unix_seconds)
        self._open[incident.subject] = incident
        return Event(change, incident, ask)

    def _changed(self, incidents: list[Incident], now_unix_seconds: float) -> list[Event]:
        events = []
        for before in incidents:
            event = self._reconsider(before, now_unix_seconds, Change.UPDATED)
            if _gist(before) != _gist(event.incident):
                events.append(self._stamped(event, now_unix_seconds))
        return events

    def _is_news(self, before: Incident, event: Event, now_unix_seconds: float) -> bool:
        told_seconds = now_unix_seconds - before.updated_unix_seconds
        same = event.change is Change.UPDATED and _gist(before) == _gist(event.incident)
        return not same or event.ask_canary or told_seconds >= self._settings.update_seconds

    def _stamped(self, event: Event, now_unix_seconds: float) -> Event:
        incident = replace(event.incident, updated_unix_seconds=now_unix_seconds)
        self._open[incident.subject] = incident
        return replace(event, incident=incident)

    def _end(self, incident: Incident, why: str, now_unix_seconds: float) -> Event:
        ended = replace(
            incident,
            state=State.RESOLVED,
            updated_unix_seconds=now_unix_seconds,
            resolved_unix_seconds=now_unix_seconds,
            resolution=why,
        )
        del self._open[incident.subject]
        self._history[ended.id] = ended
        while len(self._history) > self._settings.history_limit:
            self._history.popitem(last=False)
        return Event(Change.RESOLVED, ended)


def _gist(incident: Incident) -> tuple[object, ...]:
    """What makes an update worth telling when it changes."""
    streams = frozenset((clue.stream, clue.copy) for clue in incident.evidence)
    triage = (incident.triage.verdict, incident.triage.reasons)
    return (*triage, streams, incident.layer, incident.replicas, incident.singled_out)


def _check_length(key: str, text: str, least: int, most: int) -> None:
    if not least <= len(text) <= most:
        raise ValueError(
            f"{key} must have {least} to {most} characters, got {len(text)}: shorten or fill it in"
        )

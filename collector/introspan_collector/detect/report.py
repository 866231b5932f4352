"""The detector's state in, JSON out — and the decisions of people, as JSON, in."""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict

from introspan_collector.detect.detector import Detector
from introspan_collector.detect.incident.announcement import summary
from introspan_collector.detect.incident.finding import Subject
from introspan_collector.detect.incident.incident import Acknowledgement, Incident
from introspan_collector.detect.incident.maintenance import Window
from introspan_collector.detect.incident.record import as_json
from introspan_collector.detect.judgement import judged
from introspan_collector.detect.levels import Levels
from introspan_collector.detect.reference.builder import Builder
from introspan_collector.detect.reference.file import content_hash, from_bytes, to_bytes
from introspan_collector.detect.reference.reference import Reference, State
from introspan_collector.detect.reference.typical import Typicals
from introspan_collector.detect.shown import Answer, as_canary, as_reference, as_round, as_window
from introspan_wire.codec import SegmentTable


class Report:
    """What the detector knows and can be told, for whoever speaks JSON. Commands raise ValueError with a remedy."""

    def __init__(self, detector: Detector, clock: Callable[[], float] = time.time) -> None:
        self._detector = detector
        self._clock = clock
        self._levels = Levels()
        self._typicals = Typicals()

    def alarms(self) -> list[Answer]:
        """Incidents: open ones in the order in which they opened, then those that are over, the last first."""
        incidents = self._detector.incidents
        return [_shown(one) for one in (*incidents.open(), *reversed(incidents.history()))]

    def alarm(self, id_: str) -> Answer | None:
        """One of them, None for an id that is not known."""
        found = self._detector.incidents.find(id_)
        return None if found is None else _shown(found)

    def active(self) -> list[Answer]:
        """Model, adapter, severity and name of those that last, and whether people are told: every scrape asks."""
        return [
            {
                **one.subject._asdict(),
                "severity": one.severity.value,
                "alertname": one.alertname,
                "notified": one.notified,
            }
            for one in self._detector.incidents.open()
        ]

    def opened(self) -> list[Answer]:
        """How many began since the start, by model, adapter and name of the alert."""
        with self._detector.still():
            counts = list(self._detector.opened.items())
        return [
            {"model": model, "adapter": adapter, "alertname": alertname, "count": count}
            for (model, adapter, alertname), count in sorted(counts)
        ]

    def acknowledge(
        self, id_: str, by: str, comment: str, *, accept_as_class: bool, force: bool = False
    ) -> Answer:
        """The incident that somebody looks after now; accepted says what is done to learn it, "" for nothing."""
        done = Acknowledgement(by, comment, self._clock(), accept_as_class)
        accepted = self._detector.acknowledge(id_, done, force=force)
        return {"alarm": self.alarm(id_), "accepted": accepted}

    def windows(self) -> list[Answer]:
        """Announced deploys that are not over."""
        now = self._clock()
        return [as_window(one) for one in self._detector.incidents.windows() if one.end_unix_seconds > now]

    def announce(self, model: str, start: float | None, end: float, reason: str) -> Answer:
        """The announced deploy, from start (now where it is None) to end, in Unix seconds."""
        now = self._clock()
        window = Window(model, now if start is None else start, end, reason)
        if window.end_unix_seconds <= now:
            raise ValueError(f"end must be after now, {now:.0f}, got {end:.0f}: announce what is to come")
        self._detector.announce(window)
        return as_window(window)

    def withdraw(self, id_: str) -> None:
        """Forgets an announced deploy."""
        self._detector.withdraw(id_)

    def references(self) -> list[Answer]:
        """What every model and adapter is compared with, and what is being built for it."""
        with self._detector.still() as state:
            return [as_reference(subject, watch) for subject, watch in sorted(state.watches.items())]

    def healthy(self, model: str, adapter: str) -> list[Answer]:
        """What values are in the reference's requests, by kind of row, signal and layer; empty without a reference."""
        with self._detector.still() as state:
            watch = state.watches.get(Subject(model, adapter))
            reference = None if watch is None else watch.reference
            name = "" if watch is None else watch.content_hash
        if reference is None:
            return []
        return [
            {
                "kind": one.kind.value,
                **one.feature._asdict(),
                "mean": one.mean,
                "stddev": one.stddev,
                "requests": one.requests,
            }
            for one in self._typicals.of(name, reference)
        ]

    def course(self, model: str, adapter: str) -> list[Answer]:
        """How far requests were from the reference over the last day, and how far chance would have them."""
        with self._detector.still() as state:
            watch = state.watches.get(Subject(model, adapter))
            found = [] if watch is None else list(watch.course.of())
        return [{"kind": kind.value, "points": points} for kind, points in found]

    def judged(self, model: str, adapter: str, tables: Iterable[SegmentTable]) -> list[Answer]:
        """How unusual the requests in tables are among those of the reference; empty without one."""
        with self._detector.still() as state:
            watch = state.watches.get(Subject(model, adapter))
            reference = None if watch is None else watch.reference
        return [] if reference is None else judged(reference, tables)

    def export(self, model: str, adapter: str, *, draft: bool) -> bytes:
        """The file of the reference that is compared with; of what was collected for the next one, if draft."""
        with self._detector.still() as state:
            watch = state.watches.get(Subject(model, adapter))
            if watch is None:
                raise ValueError(_unknown(model, adapter))
            reference = watch.reference
            collected = watch.draft() if draft else None
        if collected is not None:
            # Not under the lock: fitting takes a second.
            builder = Builder(collected[0])
            builder.restore(collected[1])
            return to_bytes(builder.reference(State.PROVISIONAL, int(self._clock())))
        if reference is None:
            raise ValueError(
                f"{Subject(model, adapter)} has no reference yet: wait for one, or export what was collected"
            )
        return to_bytes(reference)

    def adopt(self, data: bytes) -> Answer:
        """The reference in a file, which is compared with from now on."""
        reference = from_bytes(data)
        self._detector.adopt(reference)
        return _taken(reference)

    def promote(self, model: str, adapter: str, *, force: bool = False) -> Answer:
        """The frozen reference that was made of what was collected; forced: whatever speaks against it."""
        reference = self._detector.promote(Subject(model, adapter), force=force)
        return _taken(reference)

    def canaries(self) -> list[Answer]:
        """How every model's canary stands, and its last round at each replica."""
        now = self._clock()
        with self._detector.still() as state:
            canaries = state.pieces.canaries
            models = sorted({*canaries.models(), *state.asked, *(one.model for one in state.watches)})
            return [
                {
                    **as_canary(canaries, model, now),
                    "wanted": model in state.asked or canaries.wanted(model),
                    "replicas": [as_round(one, now) for one in canaries.last(model)],
                }
                for model in models
            ]

    def promote_canary(self, model: str) -> Answer:
        """How the canary of a model stands whose gathered rounds were made its baseline."""
        self._detector.promote_canary(model)
        with self._detector.still() as state:
            return as_canary(state.pieces.canaries, model, self._clock())

    def detection(self) -> Answer:
        """How much evidence there is, and what was left out."""
        with self._detector.still() as state:
            pieces = state.pieces
            return {
                "streams": len(pieces.roster.streams),
                "watched": len(state.watches),
                "unwatched_requests": self._detector.unwatched_requests,
                "dropped_values": pieces.ticks.dropped_values + pieces.roster.refused_values,
                "refused_findings": pieces.incidents.refused_findings,
                "foreign_canary_rows": pieces.canaries.foreign,
                "threshold_log10": 0.0,
                "levels": self._levels.of(pieces.ticket, pieces.page),
                "drift": [
                    {
                        **subject._asdict(),
                        "kind": kind.value,
                        "distance": distance.value,
                        "threshold": distance.threshold,
                    }
                    for subject, watch in sorted(state.watches.items())
                    for kind, distance in watch.distances().items()
                ],
            }


def _shown(incident: Incident) -> Answer:
    return {"summary": summary(incident), **as_json(incident)}


def _taken(reference: Reference) -> Answer:
    return {
        "identity": asdict(reference.identity),
        "state": reference.state.value,
        "content_sha256": content_hash(reference),
        "despite": list(reference.despite),
    }


def _unknown(model: str, adapter: str) -> str:
    return f"nothing was heard of {Subject(model, adapter)}: list the references and take one of those"

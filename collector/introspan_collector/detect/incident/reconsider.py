"""An incident and the last reports of canaries in, the incident with a new triage out."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from introspan_collector.detect.incident.incident import Incident
from introspan_collector.detect.incident.triage import Canary, Situation, moved_in, triage


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """What a round of the canary found at one replica: moved, still, or silent where it could not be asked.

    place: the part of the model where a deviation begins, "" where none can be named. adapter: that it was asked
    with, "" for none.
    """

    model: str
    replica: str
    state: Canary
    time_unix_seconds: float
    place: str = ""
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class _Heard:
    state: Canary
    place: str = ""
    singled_out: tuple[str, ...] = ()


def reconsidered(
    incident: Incident,
    reports: Iterable[CanaryReport],
    answer_seconds: float,
    fresh_seconds: float,
    now_unix_seconds: float,
) -> Incident:
    """The incident with the triage that all of its evidence and the canaries give now.

    A canary that moved counts if it is at most fresh_seconds older than the incident; one that is still says
    nothing unless it answered after the incident began, and nothing of an adapter that it was not asked with.
    """
    late = _late(incident, answer_seconds, now_unix_seconds)
    heard = _heard(incident, list(reports), fresh_seconds, late=late)
    singled_out = tuple(sorted({*incident.singled_out, *heard.singled_out}))
    situation = Situation(
        moved=moved_in(clue.stream for clue in incident.evidence),
        canary=heard.state,
        place=heard.place or incident.layer,
        replicas=singled_out,
    )
    answered = heard.state in (Canary.MOVED, Canary.STILL)
    return replace(
        incident,
        triage=triage(situation),
        layer=heard.place or incident.layer,
        singled_out=singled_out,
        replicas=tuple(sorted({*incident.replicas, *singled_out})),
        asked_unix_seconds=None if answered else incident.asked_unix_seconds,
    )


def _heard(incident: Incident, reports: list[CanaryReport], fresh_seconds: float, *, late: bool) -> _Heard:
    opened, adapter = incident.opened_unix_seconds, incident.subject.adapter
    recent = [one for one in reports if one.time_unix_seconds >= opened - fresh_seconds]
    moved = [one for one in recent if one.state is Canary.MOVED and one.adapter in ("", adapter)]
    asked = [one for one in recent if one.adapter == adapter]
    since = [one for one in asked if one.time_unix_seconds >= opened]
    still = [one.replica for one in since if one.state is Canary.STILL]
    if moved:
        place = next((one.place for one in moved if one.place), "")
        return _Heard(Canary.MOVED, place, tuple(one.replica for one in moved) if still else ())
    if still and (late or len(since) == len(asked)):
        return _Heard(Canary.STILL)
    if late or (since and len(since) == len(asked)):
        return _Heard(Canary.SILENT)
    return _Heard(Canary.UNKNOWN if incident.asked_unix_seconds is None else Canary.ASKED)


def _late(incident: Incident, answer_seconds: float, now_unix_seconds: float) -> bool:
    asked = incident.asked_unix_seconds
    return asked is not None and now_unix_seconds - asked > answer_seconds

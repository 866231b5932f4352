"""An incident and its canary's last report in, the incident with a new triage out."""

from dataclasses import dataclass, replace

from introspan_collector.detect.finding import Subject
from introspan_collector.detect.incident import Incident
from introspan_collector.detect.triage import Canary, Situation, layer_name, moved_in, triage


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """What a round of the canary found: moved, still, or silent where it could not be asked.

    first_deviating and outputs_moved as in `Situation`; replicas: those where it moved, if it is still on others.
    """

    subject: Subject
    state: Canary
    time_unix_seconds: float
    first_deviating: int | None = None
    outputs_moved: bool = False
    replicas: tuple[str, ...] = ()


def reconsidered(
    incident: Incident,
    report: CanaryReport | None,
    answer_seconds: float,
    fresh_seconds: float,
    now_unix_seconds: float,
) -> Incident:
    """The incident with the triage that all of its evidence and the canary give now.

    A canary that moved counts if it is at most fresh_seconds older than the incident; one that is still says
    nothing unless it answered after the incident began.
    """
    counts = report is not None and _counts(incident, report, fresh_seconds)
    heard = report if counts else None
    state = heard.state if heard is not None else _unheard(incident, answer_seconds, now_unix_seconds)
    moved = heard is not None and heard.state is Canary.MOVED
    singled_out = incident.singled_out
    layer = incident.layer
    if heard is not None and moved:
        singled_out = tuple(sorted({*singled_out, *heard.replicas}))
        layer = layer_name(heard.first_deviating, outputs_moved=heard.outputs_moved) or layer
    situation = Situation(
        moved=moved_in(clue.stream for clue in incident.evidence),
        canary=state,
        first_deviating=heard.first_deviating if heard is not None else None,
        outputs_moved=heard is not None and heard.outputs_moved,
        replicas=singled_out,
    )
    return replace(
        incident,
        triage=triage(situation),
        layer=layer,
        singled_out=singled_out,
        replicas=tuple(sorted({*incident.replicas, *singled_out})),
        asked_unix_seconds=None if heard is not None else incident.asked_unix_seconds,
    )


def _counts(incident: Incident, report: CanaryReport, fresh_seconds: float) -> bool:
    margin_seconds = fresh_seconds if report.state is Canary.MOVED else 0.0
    return report.time_unix_seconds >= incident.opened_unix_seconds - margin_seconds


def _unheard(incident: Incident, answer_seconds: float, now_unix_seconds: float) -> Canary:
    if incident.asked_unix_seconds is None:
        return Canary.UNKNOWN
    late = now_unix_seconds - incident.asked_unix_seconds > answer_seconds
    return Canary.SILENT if late else Canary.ASKED

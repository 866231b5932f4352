"""An incident in, what people are told of it out."""

import json

from introspan_collector.detect.incident.incident import Clue, Incident, State
from introspan_collector.detect.incident.record import as_json
from introspan_collector.notice import Links, Notice

_MOST_CLUES_SAID = 5
_LONGEST_ANNOTATION = 4000

_SUMMARIES = {
    "IntrospanSamplerDeviates": "Drawn tokens of {} do not follow the sampler's distribution",
    "IntrospanCanaryDeviates": "{} gives other numbers for the same input",
    "IntrospanTrafficShifted": "Requests to {} are not what they were",
    "IntrospanReplicaDeviates": "A replica of {} differs from the others",
    "IntrospanOutputNotFinite": "{} computes values that are not finite",
    "IntrospanConsistencyFails": "{} computes the same request differently the second time",
    "IntrospanRequestsDeviate": "Requests to {} deviate from healthy ones of their kind",
}


def notice(incident: Incident, links: Links) -> Notice:
    """The alert of an incident, and where it leads."""
    labels = {
        "alertname": incident.alertname,
        "model": incident.subject.model,
        "adapter": incident.subject.adapter,
        "severity": incident.severity.value,
    }
    ways = links.of(incident.alertname, incident.subject.model, incident.id)
    annotations = _annotations(incident) | ways
    details = as_json(incident) | ways
    return Notice(
        subject=json.dumps(incident.subject),
        incident=incident.id,
        severity=incident.severity,
        labels=tuple((name, value) for name, value in labels.items() if value),
        annotations=tuple((name, text[:_LONGEST_ANNOTATION]) for name, text in annotations.items() if text),
        details=json.dumps(details),
        started_unix_seconds=incident.opened_unix_seconds,
        updated_unix_seconds=incident.updated_unix_seconds,
        ended_unix_seconds=incident.resolved_unix_seconds,
    )


def summary(incident: Incident) -> str:
    """What was seen, in one sentence."""
    return _SUMMARIES[incident.alertname].format(incident.subject)


def _annotations(incident: Incident) -> dict[str, str]:
    seen = " ".join(_said(clue) for clue in incident.evidence[:_MOST_CLUES_SAID])
    more = len(incident.evidence) - _MOST_CLUES_SAID + incident.unlisted_clues
    return {
        "summary": summary(incident),
        "description": seen + (f" And {more} more streams." if more > 0 else ""),
        "triage": incident.triage.verdict.value,
        "triage_reasons": " ".join(incident.triage.reasons),
        "guarantee": incident.guarantee,
        "layer": incident.layer,
        "replicas": ", ".join(incident.replicas),
        "requests": ", ".join(one.request_id for one in incident.exemplars),
        "trace_ids": ", ".join(one.trace_id for one in incident.exemplars if one.trace_id),
        "reference": incident.reference,
        "incident": incident.id,
        "maintenance": incident.maintenance,
        "acknowledged": _acknowledged(incident),
        "resolution": incident.resolution,
    }


def _said(clue: Clue) -> str:
    return f"{clue.sentence} ({clue.copy.value}, evidence 10^{clue.level:.1f} times the threshold)"


def _acknowledged(incident: Incident) -> str:
    done = incident.acknowledgement
    if done is None or incident.state is State.OPEN:
        return ""
    return f"by {done.by}: {done.comment}" if done.comment else f"by {done.by}"

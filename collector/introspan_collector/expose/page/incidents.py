"""Incidents in, their list and the page of one out."""

import time
from collections.abc import Iterable
from urllib.parse import urlencode

from introspan_collector.expose.page.evidence import share
from introspan_collector.expose.page.html import NotFoundError
from introspan_collector.expose.parameters import Parameters
from introspan_collector.expose.sources import Answer, Sources

PARAMETERS = ("model", "adapter")

_MOST_RESOLVED = 100
_AROUND_SECONDS = 3600.0


def content(sources: Sources, asked: Parameters) -> Answer:
    """Open ones, those that somebody looks after, and the last that are over."""
    found = [
        one
        for one in sources.detection.alarms()
        if asked.text("model") in (None, one["model"]) and asked.text("adapter") in (None, one["adapter"])
    ]
    by_state = {
        state: [one for one in found if one["state"] == state]
        for state in ("open", "acknowledged", "resolved")
    }
    return {
        "title": "Incidents",
        "open": _worst_first(by_state["open"]),
        "acknowledged": _worst_first(by_state["acknowledged"]),
        "resolved": by_state["resolved"][:_MOST_RESOLVED],
        "left_out": max(len(by_state["resolved"]) - _MOST_RESOLVED, 0),
        "windows": sources.detection.windows(),
        "only": asked.text("model") or "",
    }


def one(sources: Sources, asked: Parameters) -> Answer:
    """Everything that is known of one incident."""
    id_ = asked.text("id") or ""
    found = sources.detection.alarm(id_)
    if found is None:
        raise NotFoundError("id", id_, "take an incident that is listed")
    return {
        "title": found["summary"],
        "incident": found,
        "evidence": [{**clue, "share_of_bar": share(clue["level"])} for clue in found["evidence"]],
        "exemplars": [
            {**exemplar, "link": _request_link(exemplar, found)} for exemplar in found["exemplars"]
        ],
        "runbook": f"{sources.runbook_url}#{found['alertname'].lower()}",
        "has_runbook_link": sources.runbook_url.startswith(("http://", "https://")),
        "needs_token": sources.http_token is not None,
        "model_link": _model_link(found, time.time()),
    }


def _worst_first(incidents: Iterable[Answer]) -> list[Answer]:
    return sorted(incidents, key=lambda one: (one["severity"] != "critical", -one["opened_unix_seconds"]))


def _request_link(exemplar: Answer, incident: Answer) -> str:
    end = incident["resolved_unix_seconds"] or incident["updated_unix_seconds"]
    asked = {
        "id": exemplar["request_id"],
        "from": f"{incident['opened_unix_seconds'] - _AROUND_SECONDS:.0f}",
        "to": f"{end + _AROUND_SECONDS:.0f}",
    }
    return f"request?{urlencode(asked)}"


def _model_link(incident: Answer, now: float) -> str:
    """The model's page at the signal that the strongest evidence with a layer is about, and at its time."""
    named = next((clue["stream"] for clue in incident["evidence"] if clue["stream"]["layer"] >= 0), None)
    asked = {"model": incident["model"], "adapter": incident["adapter"]}
    if named is not None and named["signal"]:
        asked["signal"] = named["signal"]
    end = incident["updated_unix_seconds"] + _AROUND_SECONDS / 4
    if end < now:
        # What is over is shown as it was.
        asked |= {"range": "6h", "to": f"{end:.0f}"}
    return f"model?{urlencode({key: value for key, value in asked.items() if value})}"

"""What people are told of an incident at one moment: what detect gives and notify delivers."""

import json
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote


class Severity(StrEnum):
    """How soon somebody has to look."""

    CRITICAL = "critical"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Notice:
    """One alert as it stands.

    subject is what it is about, and has one incident at a time. labels are the alert's identity, of which an incident
    has one at a time; annotations and details may change without it being another alert. details is the whole
    incident as JSON, for receivers that are programs. ended is None while it lasts.
    """

    subject: str
    incident: str
    severity: Severity
    labels: tuple[tuple[str, str], ...]
    annotations: tuple[tuple[str, str], ...]
    details: str
    started_unix_seconds: float
    updated_unix_seconds: float
    ended_unix_seconds: float | None = None

    @property
    def identity(self) -> str:
        """The labels as one text, whatever their order."""
        return json.dumps(sorted(self.labels))


@dataclass(frozen=True, slots=True)
class Links:
    """Addresses as people reach them: of docs/runbook.md, of Grafana and of the collector's own pages; "" for none."""

    runbook_url: str = "docs/runbook.md"
    grafana_url: str = "http://localhost:3000"
    page_url: str = "http://localhost:9464"

    def of(self, alertname: str, model: str, incident: str) -> dict[str, str]:
        """Where an alert leads: what to do about it, the dashboard of its model, and everything that is known of it."""
        grafana, pages = self.grafana_url.rstrip("/"), self.page_url.rstrip("/")
        found = {"runbook_url": f"{self.runbook_url}#{alertname.lower()}"}
        if grafana:
            found["dashboard_url"] = f"{grafana}/d/introspan-requests?var-model={quote(model, safe='')}"
        if pages:
            found["page_url"] = f"{pages}/incident?id={quote(incident, safe='')}"
        return found

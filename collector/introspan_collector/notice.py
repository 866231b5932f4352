"""What people are told of an incident at one moment: what detect gives and notify delivers."""

import json
from dataclasses import dataclass
from enum import StrEnum


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

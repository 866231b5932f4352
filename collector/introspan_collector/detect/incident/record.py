"""Incidents in, bytes and JSON out — and back."""

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from introspan_collector.detect import checkpoint
from introspan_collector.detect.incident.finding import Subject
from introspan_collector.detect.incident.incident import Incident
from introspan_collector.detect.incident.maintenance import Window
from introspan_collector.detect.incident.reconsider import CanaryReport
from introspan_collector.detect.sequential.evidence import Stream

_WHAT = "the incidents"
_VERSION = 2


@dataclass(frozen=True, slots=True)
class Book:
    """Everything that outlives the process."""

    open: tuple[Incident, ...]
    history: tuple[Incident, ...]
    windows: tuple[Window, ...]
    reports: tuple[CanaryReport, ...]
    id: str
    begun: int
    """Incidents that began: it numbers the next."""


_BOOK = TypeAdapter(Book)
_INCIDENT = TypeAdapter(Incident)


def dump(book: Book) -> bytes:
    """The book as bytes that notice any damage."""
    return checkpoint.dump(_WHAT, _VERSION, {"book": _BOOK.dump_python(book, mode="json")}, {})


def load(data: bytes) -> Book:
    """The book of bytes that `dump` made. Raises ValueError for others."""
    header, _ = checkpoint.load(_WHAT, _VERSION, data)
    try:
        return _BOOK.validate_python(header["book"])
    except (KeyError, ValidationError) as error:
        raise ValueError(
            f"checkpoint of {_WHAT} is of another version ({error}): delete it to start anew"
        ) from error


# Any: what JSON holds.
def as_json(incident: Incident) -> dict[str, Any]:
    """The incident as the API shows it, with its guarantee and what can be done about it."""
    shown: dict[str, Any] = _INCIDENT.dump_python(incident, mode="json")
    # By name: whoever reads JSON knows no order of fields.
    shown |= dict(zip(Subject._fields, shown.pop("subject"), strict=True))
    for clue in shown["evidence"]:
        clue["stream"] = dict(zip(Stream._fields, clue["stream"], strict=True))
    shown["guarantee"] = incident.guarantee
    shown["actions"] = [] if incident.resolved_unix_seconds else ["acknowledge", "accept_as_class"]
    return shown

"""What `expose` reads: the aggregates, the archive, the detector and the collector's own counts, as it sees them."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from introspan_collector.model import SeriesKey, Stats
from introspan_collector.view import ArchiveStats, Stored, Track, View, Worker
from introspan_wire.codec import SegmentTable
from introspan_wire.signals import Kind


class Aggregates(Protocol):
    """The aggregates."""

    def view(self) -> View:
        """Everything at this moment."""
        ...

    def workers(self) -> tuple[Worker, ...]:
        """Every worker that is heard of."""
        ...

    def tracks(self, wanted: Callable[[SeriesKey], bool], limit: int) -> list[Track]:
        """The recent slots of every series that is wanted, at most limit of them."""
        ...


class Rollups(Protocol):
    """The archive."""

    def tracks(
        self,
        wanted: tuple[str, str | None, str | None, str | None, int | None],
        from_unix_seconds: float,
        to_unix_seconds: float,
        step_seconds: int = 60,
    ) -> list[Track]:
        """By steps of whole minutes, the series wanted: (signal, model, replica, adapter, layer), None = every."""
        ...

    def request(self, request_id: str, from_unix_seconds: float, to_unix_seconds: float) -> list[Stored]:
        """Segments of a request by its client's id, in the order in which they came."""
        ...

    def newest(
        self, model: str, replica: str | None, adapter: str | None, kind: Kind | None, limit: int
    ) -> list[Stored]:
        """The newest segments of a model, newest first; None = every."""
        ...

    def stats(self) -> ArchiveStats:
        """Counts and sizes."""
        ...


# Any: JSON.
Answer = dict[str, Any]


class Detection(Protocol):
    """The detector, which speaks JSON. What it is told to do and cannot raises ValueError with a remedy."""

    def alarms(self) -> list[Answer]:
        """Incidents, open ones first."""
        ...

    def alarm(self, id_: str) -> Answer | None:
        """One of them."""
        ...

    def active(self) -> list[Answer]:
        """Model, adapter, severity and name of those that last, and whether people are told."""
        ...

    def opened(self) -> list[Answer]:
        """How many began since the start."""
        ...

    def acknowledge(
        self, id_: str, by: str, comment: str, *, accept_as_class: bool, force: bool = False
    ) -> Answer:
        """Records who looks after an incident, and learns what raised it if that is accepted."""
        ...

    def windows(self) -> list[Answer]:
        """Announced deploys."""
        ...

    def announce(self, model: str, start: float | None, end: float, reason: str) -> Answer:
        """Announces one."""
        ...

    def withdraw(self, id_: str) -> None:
        """Forgets one."""
        ...

    def references(self) -> list[Answer]:
        """References, and what is being built."""
        ...

    def healthy(self, model: str, adapter: str) -> list[Answer]:
        """What values are in healthy requests, by kind of row, signal and layer."""
        ...

    def course(self, model: str, adapter: str) -> list[Answer]:
        """How far requests were from the reference over the last day, by kind of row: time, distance, threshold."""
        ...

    def judged(self, model: str, adapter: str, tables: Iterable[SegmentTable]) -> list[Answer]:
        """How unusual requests are among healthy ones."""
        ...

    def export(self, model: str, adapter: str, *, draft: bool) -> bytes:
        """The file of one."""
        ...

    def adopt(self, data: bytes) -> Answer:
        """Compares with the reference in a file from now on."""
        ...

    def promote(self, model: str, adapter: str, *, force: bool = False) -> Answer:
        """Freezes what was collected."""
        ...

    def canaries(self) -> list[Answer]:
        """How canaries stand."""
        ...

    def promote_canary(self, model: str) -> Answer:
        """Makes gathered rounds the baseline."""
        ...

    def detection(self) -> Answer:
        """Levels of evidence, and what was left out."""
        ...


class Deliveries(Protocol):
    """What became of notices: counts by target's address, of failures by address and reason."""

    @property
    def waiting(self) -> Mapping[str, int]:
        """Alerts of which a target does not know the newest."""
        ...

    @property
    def delivered(self) -> Mapping[str, int]:
        """Notices that were taken."""
        ...

    @property
    def failed(self) -> Mapping[tuple[str, str], int]:
        """Calls that were not."""
        ...

    @property
    def dropped(self) -> Mapping[str, int]:
        """Notices given up, by reason."""
        ...

    @property
    def alertmanagers(self) -> Collection[str]:
        """Those of the targets that are Alertmanagers."""
        ...


@dataclass(frozen=True, slots=True)
class Sources:
    """All of them, and whether the collector is ready to take observations.

    endpoints: servers that the collector asks canaries of; http_token: what calls that change something must carry;
    runbook_url: address of the page that says what to do about each alert; trace_url: of a trace, {trace_id} in it, ""
    for none.
    """

    aggregates: Aggregates
    archive: Rollups
    stats: Callable[[], Stats]
    ready: Callable[[], bool]
    detection: Detection
    deliveries: Callable[[], Deliveries]
    endpoints: Callable[[], list[Answer]]
    http_token: str | None = None
    runbook_url: str = ""
    trace_url: str = ""

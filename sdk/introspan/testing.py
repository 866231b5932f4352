"""Stand-ins for tests of what is built on Introspan: a pipeline that keeps what capture measures."""

from collections.abc import Callable

from introspan.admission import Admission
from introspan.config import Settings
from introspan.observation import CaptureStatus, Observation, Request, Resource, RowColumn, Rows


class RowLog:
    """Takes the place of introspan.pipeline.Pipeline and keeps every measured row in memory.

    Give the class, or a function that makes one, to `introspan.plugin.register`; `RowLog.opened` lists the
    instances in the order in which models were loaded.
    """

    opened: "list[RowLog]" = []  # noqa: RUF012 - the workers that make instances hand them to nobody

    def __init__(
        self,
        settings: Settings,
        resource: Resource,
        columns: tuple[RowColumn, ...],
        capacity: int,
        admission: Admission,
        status: Callable[[], CaptureStatus],
        switch_off: Callable[[], None],
    ) -> None:
        self.settings = settings
        self.resource = resource
        self.columns = columns
        self.capacity = capacity
        self.admission = admission
        self.status = status
        self.switch_off = switch_off
        self.kept: list[Rows] = []
        self.canary_rows: list[Observation] = []
        self.ended: dict[str, tuple[Request, int]] = {}
        self.fingerprints: list[tuple[int, str]] = []
        """Each change of the model: how many times rows had been kept before it, and the new fingerprint."""
        RowLog.opened.append(self)

    def rows(self, rows: Rows) -> None:
        """Keeps the rows of one step."""
        self.kept.append(rows)

    def canaries(self, observations: list[Observation]) -> None:
        """Keeps what is no traffic: rows of canaries, comparisons with requests sent again."""
        self.canary_rows += observations

    def finished(self, request: Request, last_position: int) -> None:
        """Keeps the end of a request."""
        self.ended[request.key] = (request, last_position)

    def model_changed(self, fingerprint: str) -> None:
        """Keeps the fingerprint."""
        self.fingerprints.append((len(self.kept), fingerprint))

    def close(self) -> None:
        """Does nothing: all is kept."""

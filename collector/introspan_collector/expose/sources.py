"""What `expose` reads: the aggregates, the archive and the collector's own counts, as it sees them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from introspan_collector.model import SeriesKey, Stats
from introspan_collector.view import ArchiveStats, Track, View


class Aggregates(Protocol):
    """The aggregates."""

    def view(self) -> View:
        """Everything at this moment."""
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
    ) -> list[Track]:
        """Minute by minute, the series wanted: (signal, model, replica, adapter, layer), None = every."""
        ...

    def stats(self) -> ArchiveStats:
        """Counts and sizes."""
        ...


@dataclass(frozen=True, slots=True)
class Sources:
    """All of them, and whether the collector is ready to take observations."""

    aggregates: Aggregates
    archive: Rollups
    stats: Callable[[], Stats]
    ready: Callable[[], bool]

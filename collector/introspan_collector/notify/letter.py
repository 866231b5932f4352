"""What one target is to be told of one alert."""

from dataclasses import dataclass

from introspan_collector.notice import Notice


@dataclass(slots=True)
class Letter:
    """A notice for one target, of which it has at most one by key.

    told: it has once been told while the alert lasted; sent: it was on its way, so that it may be told before that is
    known; news: the target does not know the newest of it. due: by the monotonic clock, infinite where there is nothing
    to tell. version grows with every notice, so that an answer is
    taken for what was sent.
    """

    key: str
    notice: Notice
    due: float
    told: bool = False
    sent: bool = False
    news: bool = True
    version: int = 0
    failures: int = 0

    @property
    def over(self) -> bool:
        """Whether the alert has ended."""
        return self.notice.ended_unix_seconds is not None

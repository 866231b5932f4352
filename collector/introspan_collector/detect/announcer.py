"""Events of incidents in; what people are told, whose canary is asked at once, and how many began out."""

from collections import Counter
from collections.abc import Callable, Iterable

from introspan_collector.detect.incident.announcement import notice
from introspan_collector.detect.incident.incident import Incident
from introspan_collector.detect.incident.incidents import Change, Event
from introspan_collector.notice import Links, Notice

_MOST_COUNTS = 1024
_HEARD_SECONDS = 2.0
"""So long a canary is wanted at least: whoever asks looks once a second, and one engine may answer sooner than that."""


class Announcer:
    """Tells of incidents, and remembers which canaries were asked for."""

    def __init__(self, tell: Callable[[Notice], None], links: Links, clock: Callable[[], float]) -> None:
        self._tell = tell
        self._links = links
        self._clock = clock
        self.asked: dict[str, float] = {}
        """Models whose canary is asked at once, and since when."""
        self.opened: Counter[tuple[str, str, str]] = Counter()
        """Incidents that began since the start, by model, adapter and name of the alert."""

    def announce(self, events: Iterable[Event]) -> None:
        """Passes on what has happened."""
        for event in events:
            self._count(event)
            if event.ask_canary:
                self.ask(event.incident.subject.model)
            if event.incident.notified:
                self._tell(self.notice(event.incident))

    def notice(self, incident: Incident) -> Notice:
        """What people are told of an incident."""
        return notice(incident, self._links)

    def ask(self, model: str) -> None:
        """Has the canary of a model asked at once."""
        self.asked[model] = self._clock()

    def answered(self, model: str, began_unix_seconds: float) -> None:
        """Takes note of a round. One that was under way when it was asked for is not the one that is waited for."""
        asked, now = self.asked.get(model), self._clock()
        if asked is None:
            return
        is_since = began_unix_seconds >= asked and now - asked >= _HEARD_SECONDS
        if is_since or asked > now:  # a clock that was set back: no round would ever be late enough
            del self.asked[model]

    def _count(self, event: Event) -> None:
        incident = event.incident
        # One that opened during a deploy opens for people again when that is over.
        if event.change is Change.OPENED and incident.notified == (not incident.maintenance):
            key = (*incident.subject, incident.alertname)
            self.opened[key if key in self.opened or len(self.opened) < _MOST_COUNTS else ("other",) * 3] += 1

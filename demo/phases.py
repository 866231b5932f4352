"""What the collector has found in, what the demonstration does next out."""

from dataclasses import dataclass, field
from enum import StrEnum

from demo.watched import Incident, Watched

HEALTHY_SECONDS = 15.0
READING_SECONDS = 12.0
"""How long an alarm stays on screen, at least, before what caused it is taken back."""

_PENDING = "pending"


class Phase(StrEnum):
    """The acts of the performance, in their order."""

    LEARNING = "learning what is healthy"
    HEALTHY = "healthy"
    FAULT = "fault"
    OVER = "fault taken back"


@dataclass(slots=True)
class Director:
    """Moves from act to act by what was found, not by the clock alone.

    has_fault: whether anything is done to the system after it was healthy; is_reversible: whether that is taken back.
    began: when each act so far began, on the caller's clock.
    """

    has_fault: bool
    is_reversible: bool
    phase: Phase = Phase.LEARNING
    began: dict[Phase, float] = field(default_factory=dict)
    alarm: Incident | None = None
    """The first incident since the fault, as it looked last."""
    alarmed_at: float | None = None
    resolved_at: float | None = None
    false_alarms: tuple[Incident, ...] = ()
    """Incidents that began before the fault did."""

    def step(self, seen: Watched, now: float) -> Phase:
        """The act that is on now."""
        self.began.setdefault(self.phase, now)
        self._look(seen, now)
        following = self._following(seen, now)
        if following is not None:
            self.phase = following
            self.began[following] = now
        return self.phase

    def _look(self, seen: Watched, now: float) -> None:
        if self.phase in (Phase.LEARNING, Phase.HEALTHY):
            self.false_alarms = seen.incidents
            return
        known = {one.id for one in self.false_alarms}
        since = [one for one in seen.incidents if one.id not in known]
        if not since:
            return
        self.alarm = since[-1]
        if self.alarmed_at is None:
            self.alarmed_at = now
        if self.resolved_at is None and not self.alarm.is_open:
            self.resolved_at = now

    def _following(self, seen: Watched, now: float) -> Phase | None:
        since = now - self.began[self.phase]
        if self.phase is Phase.LEARNING and seen.is_learnt:
            return Phase.HEALTHY
        if self.phase is Phase.HEALTHY and self.has_fault and since >= HEALTHY_SECONDS:
            return Phase.FAULT
        if self.phase is Phase.FAULT and self.is_reversible and self._is_told(now):
            return Phase.OVER
        return None

    def _is_told(self, now: float) -> bool:
        if self.alarm is None or self.alarmed_at is None or self.alarm.verdict == _PENDING:
            return False
        return now - self.alarmed_at >= READING_SECONDS

"""How long and how much the aggregates keep."""

from dataclasses import dataclass

_MOST_SLOTS = 1440
"""Four hours of the usual ones, and of every series."""


@dataclass(frozen=True, slots=True)
class AggregateSettings:
    """Slots make up the window that gauges show; kept slots are what can be asked for later."""

    slot_seconds: float = 10.0
    shown_slots: int = 6
    kept_slots: int = 12
    series_limit: int = 50_000
    worker_limit: int = 10_000
    idle_seconds: float = 900.0

    def __post_init__(self) -> None:
        for name in ("slot_seconds", "shown_slots", "series_limit", "worker_limit", "idle_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        if self.kept_slots < self.shown_slots:
            raise ValueError(
                f"kept_slots must be at least shown_slots = {self.shown_slots}, got {self.kept_slots}"
            )
        if self.kept_slots > _MOST_SLOTS:
            raise ValueError(
                f"kept_slots must be at most {_MOST_SLOTS}, got {self.kept_slots}: each takes memory"
            )
        # What is asked for over time comes from slots for the last one to two minutes, from rollups before.
        if 60 % self.slot_seconds:
            raise ValueError(f"slot_seconds must divide a minute, got {self.slot_seconds}")
        if self.kept_slots * self.slot_seconds < 120:
            raise ValueError(
                f"kept_slots must be at least {120 / self.slot_seconds:g}: two minutes, got {self.kept_slots}"
            )

"""What the detectors are told: how often they may be wrong, and how much traffic they want to see first."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DetectSettings:
    """ticket_days and page_days: mean time between false alarms of each kind, at least, over all models together.

    An incident is over after quiet_seconds and quiet_requests without an alarm. subject_limit: models and adapters
    that are watched; what comes beyond is counted.
    """

    enabled: bool = True
    tick_seconds: float = 10.0
    ticket_days: float = 1.0
    page_days: float = 30.0
    provisional_clusters: int = 500
    frozen_clusters: int = 2000
    frozen_hours: float = 24.0
    quiet_seconds: float = 900.0
    quiet_requests: int = 1000
    canary_rounds: int = 64
    subject_limit: int = 64
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite, got {getattr(self, name)}: give a number")
            if name not in ("enabled", "frozen_hours") and getattr(self, name) <= 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        if self.frozen_hours < 0:
            raise ValueError(f"frozen_hours must be >= 0, got {self.frozen_hours}")
        if self.frozen_clusters < self.provisional_clusters:
            raise ValueError(
                f"frozen_clusters must be at least provisional_clusters = {self.provisional_clusters}, "
                f"got {self.frozen_clusters}"
            )
        if self.page_days < self.ticket_days:
            raise ValueError(
                f"page_days must be at least ticket_days = {self.ticket_days}, got {self.page_days}"
            )

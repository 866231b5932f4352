"""How many incidents are kept, how often more of the same is told, and how long a canary may take to answer."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IncidentSettings:
    """How many incidents are kept, how often more of the same is told, and how long a canary may take to answer."""

    open_limit: int = 256
    history_limit: int = 200
    update_seconds: float = 10.0
    answer_seconds: float = 30.0
    canary_fresh_seconds: float = 120.0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) <= 0:
                raise ValueError(f"incidents.{name} must be > 0, got {getattr(self, name)}")

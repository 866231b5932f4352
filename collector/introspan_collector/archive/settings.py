"""When the archive writes a part, and how long it keeps parts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ArchiveSettings:
    """When a part is written, and how long parts are kept."""

    flush_seconds: float = 30.0
    buffer_bytes: int = 8 << 20
    max_age_seconds: float = 7 * 86_400.0
    max_bytes: int = 16 << 30
    rollup_max_age_seconds: float = 90 * 86_400.0
    rollup_max_bytes: int = 4 << 30

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) <= 0:
                raise ValueError(f"archive.{name} must be > 0, got {getattr(self, name)}")
        if self.flush_seconds > 60:
            raise ValueError(
                f"archive.flush_seconds must be <= 60, got {self.flush_seconds}: aggregates cover no more"
            )

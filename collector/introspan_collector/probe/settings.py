"""Which served models the collector asks itself, how often, and with which secrets."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """endpoints: addresses of vLLM servers, each asked once in interval_seconds, and at once where it is needed.

    key_file holds the secret that the servers know as INTROSPAN_CANARY_KEY; without it answers are compared, states
    inside the model are not.
    """

    endpoints: tuple[str, ...] = ()
    interval_seconds: float = 60.0
    timeout_seconds: float = 30.0
    api_key_file: Path | None = None
    key_file: Path | None = None

    def __post_init__(self) -> None:
        for name in ("interval_seconds", "timeout_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"canary.{name} must be > 0, got {getattr(self, name)}")
        for address in self.endpoints:
            parts = urlsplit(address)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"canary.endpoints must be http(s)://host[:port], got {address!r}")

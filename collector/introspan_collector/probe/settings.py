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
            check_endpoint("canary.endpoints", address)


def check_endpoint(key: str, address: str) -> None:
    """Raises ValueError where no server can be at an address."""
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none, or half an IPv6 address
        usable = False
    if not usable:
        raise ValueError(f"{key} must be http(s)://host[:port], got {address!r}")

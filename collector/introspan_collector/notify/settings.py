"""Who is told of incidents, how, and how patiently."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from introspan_collector.notice import Links

_POSITIVE = (
    "timeout_seconds",
    "resend_seconds",
    "retry_seconds",
    "retry_limit_seconds",
    "late_seconds",
    "queue_limit",
    "max_age_seconds",
)


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """Who is told of incidents, how, and how patiently.

    Each Alertmanager of a cluster is listed. A file's content is read again for every call, so it may be exchanged.
    """

    alertmanagers: tuple[str, ...] = ()
    alertmanager_token_file: Path | None = None
    alertmanager_ca_file: Path | None = None
    alertmanager_headers: Mapping[str, str] = field(default_factory=dict)
    webhooks: tuple[str, ...] = ()
    webhook_token_file: Path | None = None
    webhook_secret_file: Path | None = None
    webhook_ca_file: Path | None = None
    webhook_headers: Mapping[str, str] = field(default_factory=dict)
    runbook_url: str = "docs/runbook.md"
    grafana_url: str = "http://localhost:3000"
    page_url: str = "http://localhost:9464"
    timeout_seconds: float = 5.0
    resend_seconds: float = 60.0
    retry_seconds: float = 1.0
    retry_limit_seconds: float = 60.0
    late_seconds: float = 300.0
    queue_limit: int = 1000
    max_age_seconds: float = 86_400.0

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise ValueError(f"notify.{name} must be > 0, got {getattr(self, name)}")
        if self.retry_limit_seconds < self.retry_seconds:
            raise ValueError(
                f"notify.retry_limit_seconds must be >= retry_seconds = {self.retry_seconds},"
                f" got {self.retry_limit_seconds}"
            )
        for key in ("alertmanagers", "webhooks"):
            for address in getattr(self, key):
                _check_address(f"notify.{key}", address)
        addresses = (*self.alertmanagers, *self.webhooks)
        if len(set(addresses)) < len(addresses):
            raise ValueError(f"notify names an address twice, got {addresses}: name each once")
        for key in ("alertmanager_headers", "webhook_headers"):
            for name, value in getattr(self, key).items():
                if not (name + value).isascii() or not (name + value).isprintable():
                    # Not repeated: it may hold a secret.
                    raise ValueError(f"notify.{key}.{name!r} must be printable ASCII: encode it otherwise")

    @property
    def links(self) -> Links:
        """Where alerts lead."""
        return Links(self.runbook_url, self.grafana_url, self.page_url)


def _check_address(key: str, address: str) -> None:
    if "@" in address:
        # Not repeated: it may hold a password.
        raise ValueError(f"{key} must not hold a user or password: use a token file or headers")
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise ValueError(f"{key} must be http(s)://host[:port][/path], got {address!r}: {error}") from error
    if url.scheme not in ("http", "https") or not url.host or not 0 < (url.port or 80) < 65_536:
        raise ValueError(f"{key} must be http(s)://host[:port][/path], got {address!r}")

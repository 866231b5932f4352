"""Settings in, whom to tell and whom to trust out."""

import ssl
from collections.abc import Sequence
from typing import Protocol

import httpx

from introspan_collector.notice import Notice
from introspan_collector.notify.alertmanager import Alertmanager
from introspan_collector.notify.delivery import Call, Outcome
from introspan_collector.notify.letter import Letter
from introspan_collector.notify.settings import NotifySettings
from introspan_collector.notify.webhook import Webhook


class Target(Protocol):
    """Somebody to be told."""

    @property
    def url(self) -> str:
        """Its address, which names it."""
        ...

    @property
    def batch(self) -> int:
        """Letters that one call takes at most."""
        ...

    @property
    def resend_seconds(self) -> float:
        """How often it is told of what lasts; infinite for once."""
        ...

    def key(self, notice: Notice) -> str:
        """What an alert is to it."""
        ...

    async def send(
        self, client: httpx.AsyncClient, letters: Sequence[Letter], now_unix_seconds: float
    ) -> Outcome:
        """Tells it."""
        ...


def targets(settings: NotifySettings) -> tuple[Target, ...]:
    """Everybody that the settings name."""
    timeout = settings.timeout_seconds
    peers = Call(timeout, settings.alertmanager_token_file, settings.alertmanager_headers)
    receivers = Call(timeout, settings.webhook_token_file, settings.webhook_headers)
    return (
        *(
            Alertmanager(url, peers, settings.resend_seconds, settings.late_seconds)
            for url in settings.alertmanagers
        ),
        *(Webhook(url, receivers, settings.webhook_secret_file) for url in settings.webhooks),
    )


def check_files(settings: NotifySettings) -> None:
    """Raises ValueError for a token or secret that cannot be read now, though it is read again for every call."""
    for key in ("alertmanager_token_file", "webhook_token_file", "webhook_secret_file"):
        path = getattr(settings, key)
        try:
            if path is not None:
                path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"notify.{key} = {path} cannot be read: {error}; name a file that can"
            ) from error


def trust(target: Target, settings: NotifySettings) -> ssl.SSLContext | None:
    """The authority that vouches for a target, None for those everybody trusts. Raises ValueError."""
    webhook = isinstance(target, Webhook)
    path = settings.webhook_ca_file if webhook else settings.alertmanager_ca_file
    if path is None:
        return None
    key = "webhook_ca_file" if webhook else "alertmanager_ca_file"
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:  # of which ssl.SSLError is one
        raise ValueError(
            f"notify.{key} = {path} cannot be used: {error}; give certificates in PEM"
        ) from error

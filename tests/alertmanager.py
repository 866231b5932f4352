"""A folder and a receiver in, a real Alertmanager that tells it at once out."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from demo.processes import start
from tests.patience import until_answering

_STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A running Alertmanager."""

    url: str
    client: httpx.Client
    """One for all calls: making one takes longer than an alert may."""

    # Any: alerts as its API gives them.
    def alerts(self, **labels: str) -> list[Any]:
        """Alerts that last and have these labels."""
        wanted = [f'{name}="{value}"' for name, value in labels.items()]
        answer = self.client.get(f"{self.url}/api/v2/alerts", params={"filter": wanted})
        answer.raise_for_status()
        found: list[Any] = answer.json()
        return found

    def alert(self, **labels: str) -> Any:
        """The one alert with these labels."""
        found = self.alerts(**labels)
        assert len(found) == 1, found
        return found[0]


@contextmanager
def alerting(folder: Path, program: Path, port: int, receiver_url: str) -> Iterator[Peer]:
    """An Alertmanager with one group a model, that tells the receiver of what fires and of what is over."""
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder / "alertmanager.yml"
    configuration.write_text(
        "global: {resolve_timeout: 1h}\n"
        f"route: {{receiver: test, group_by: [model], group_wait: 1s, group_interval: 1s,"
        " repeat_interval: 1h}\n"
        f"receivers: [{{name: test, webhook_configs: [{{url: '{receiver_url}', send_resolved: true}}]}}]\n"
    )
    address = f"127.0.0.1:{port}"
    command = (
        program,
        f"--config.file={configuration}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    )
    with start("alertmanager", command, {}, folder, _STOP_SECONDS) as started:
        until_answering(started, f"http://{address}/-/ready")
        with httpx.Client(timeout=10) as client:
            yield Peer(f"http://{address}", client)

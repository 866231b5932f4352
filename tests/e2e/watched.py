"""A folder in; a served model that a collector watches, its canary, and the Alertmanager that is told, out.

The server can be exchanged for one with other weights, and its sampler made wrong while it runs: both from outside
the product.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from client import COMPLETION
from deployment import MODEL, serving_soon

from demo.faults import write_wrong_sampler
from tests.alertmanager import Peer, alerting
from tests.collector import Collector
from tests.receiver import Receiver, receiving

CLUSTERS = 320
_TOKENS = 2
_CALLERS_AT_ONCE = 8
_POLL_SECONDS = 0.2
_TIMEOUT_SECONDS = 120.0
_SECRET = "a secret of this test and its server"
_CONFIG = """
[detect]
tick_seconds = 1
provisional_clusters = {clusters}
frozen_clusters = {clusters}
frozen_hours = 0.01
quiet_seconds = 20
quiet_requests = 40
canary_rounds = 4

[canary]
endpoints = ["http://127.0.0.1:{port}"]
interval_seconds = 8
key_file = "{key_file}"

[notify]
alertmanagers = ["{alertmanager}"]
resend_seconds = 2
"""


@dataclass(slots=True)
class Watched:
    """What is running. hot: the file that makes the sampler wrong while it exists."""

    collector: Collector
    peer: Peer
    receiver: Receiver
    folder: Path
    port: int
    environment: dict[str, str]
    hot: Path
    answered: int = 0
    _server: ExitStack = field(default_factory=ExitStack)
    _starts: int = 0

    def serve(self, model: Path) -> None:
        """Serves these weights in place of those before, at the same address and as the same replica."""
        self.stop()
        self._starts += 1
        name = f"vllm-{self._starts}"
        self._server.enter_context(serving_soon(model, self.folder, self.port, self.environment, name))

    def stop(self) -> None:
        """Ends the server."""
        self._server.close()

    @contextmanager
    def hot_sampler(self) -> Iterator[None]:
        """While it lasts the server samples at one and a half times the temperature that it is asked for."""
        self.hot.touch()
        try:
            yield
        finally:
            self.hot.unlink()

    # Any: whatever done gives.
    def send_until(
        self,
        done: Callable[[], Any],
        texts: Iterator[str],
        within_seconds: float = 120.0,
        at_once: int = _CALLERS_AT_ONCE,
    ) -> Any:
        """Sends texts, so many at once and each by a caller of its own, until done gives something; that."""
        until = time.monotonic() + within_seconds
        with (
            ThreadPoolExecutor(at_once) as pool,
            httpx.Client(base_url=f"http://127.0.0.1:{self.port}/v1/", timeout=_TIMEOUT_SECONDS) as client,
        ):
            waiting = [pool.submit(self._send, client, next(texts)) for _ in range(at_once)]
            while not (found := done()):
                assert time.monotonic() < until, f"not within {within_seconds} s: {self.state()}"
                for one in [one for one in waiting if one.done()]:
                    one.result()
                    self.answered += 1
                    waiting.remove(one)
                    waiting.append(pool.submit(self._send, client, next(texts)))
                time.sleep(_POLL_SECONDS)
            for one in waiting:
                one.result()
        return found

    # Any throughout: JSON.
    def alerts(self) -> list[Any]:
        """What lasts in Alertmanager."""
        return self.peer.alerts()

    def alarms(self, **wanted: str) -> list[Any]:
        """Incidents in the collector's API, those that are over too."""
        found: list[Any] = self.collector.get("/api/v1/alarms", **wanted).json()["alarms"]
        return found

    def reference(self) -> Any:
        """How the model's reference stands."""
        return next(iter(self.collector.get("/api/v1/references").json()["references"]), {})

    def canary(self) -> Any:
        """How the model's canary stands."""
        return next(iter(self.collector.get("/api/v1/canaries").json()["canaries"]), {})

    def state(self) -> str:
        """What there is to see, for whoever has to find out why a claim does not come true."""
        return f"alarms {self.alarms()}; reference {self.reference()}; canary {self.canary()}"

    def _send(self, client: httpx.Client, text: str) -> None:
        body = {
            "model": MODEL,
            "prompt": text,
            "max_tokens": _TOKENS,
            "ignore_eos": True,
            "temperature": 1.0,
            "top_p": 1.0,
        }
        headers = {"authorization": f"Bearer {secrets.token_hex(8)}"}
        client.post(COMPLETION, json=body, headers=headers).raise_for_status()


@contextmanager
def watched(folder: Path, model: Path, free_port: Callable[[], int], alertmanager: Path) -> Iterator[Watched]:
    """A served model that is watched, with nothing learnt yet."""
    key_file, port = folder / "canary.key", free_port()
    key_file.write_text(_SECRET)
    flag, plugin = write_wrong_sampler(folder / "plugin")
    with ExitStack() as stack:
        receiver = stack.enter_context(receiving())
        peer = stack.enter_context(alerting(folder / "alertmanager", alertmanager, free_port(), receiver.url))
        config = _CONFIG.format(clusters=CLUSTERS, port=port, key_file=key_file, alertmanager=peer.url)
        collector = stack.enter_context(Collector(folder, free_port, config))
        environment = {
            "INTROSPAN_ENDPOINT": collector.grpc,
            "INTROSPAN_REPLICA": "replica-0",
            "INTROSPAN_SALT": _SECRET,
            "INTROSPAN_CANARY_KEY": _SECRET,
            **plugin,
        }
        running = Watched(collector, peer, receiver, folder, port, environment, flag)
        stack.callback(running.stop)
        running.serve(model)
        yield running

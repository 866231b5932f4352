"""Endpoints in, a round of the canary at each every so often out: a thread for each beside the collector's own work."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from introspan_collector.probe.canary import Asker, Result, Target
from introspan_collector.probe.report import Frames, ReportError
from introspan_collector.probe.secret import canary_key, secret
from introspan_collector.probe.settings import ProbeSettings
from introspan_wire.codec import SegmentTable

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 0.25
_SHORTEST_SECONDS = 1.0


@dataclass(slots=True)
class Endpoint:
    """What is known of one endpoint: rounds that were answered in full, rounds that were not, and the last error."""

    target: Target
    asker: Asker
    model: str = ""
    answered: int = 0
    failed: int = 0
    error: str = ""
    asked_at: float | None = None


class ProbeJob:
    """Asks the endpoints of the settings, each by itself: one that is slow delays no other.

    Raises ValueError for a secret that cannot be used. wanted says whether a model is to be asked at once; deliver
    takes a serialized request, and raises ReportError where the collector did not take it.
    """

    def __init__(
        self,
        settings: ProbeSettings,
        wanted: Callable[[str], bool],
        deliver: Callable[[bytes], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deliver = deliver
        api_key, key = secret(settings.api_key_file), canary_key(settings.key_file)
        targets = [Target(url, "", api_key, key, settings.timeout_seconds) for url in settings.endpoints]
        self.endpoints = [Endpoint(target, self._asker(target)) for target in targets]
        self._interval_seconds = settings.interval_seconds
        self._wanted = wanted
        self._monotonic = monotonic
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._follow, args=(endpoint,), name="introspan-canary", daemon=True)
            for endpoint in self.endpoints
        ]

    # Any: JSON.
    def states(self) -> list[dict[str, Any]]:
        """Every endpoint as JSON: address, model, engines, rounds answered and failed, and the last error."""
        now = self._monotonic()
        return [
            {
                "url": endpoint.target.url,
                "model": endpoint.model,
                "ranks": endpoint.asker.ranks,
                "answered": endpoint.answered,
                "failed": endpoint.failed,
                "error": endpoint.error,
                "asked_seconds_ago": None if endpoint.asked_at is None else now - endpoint.asked_at,
            }
            for endpoint in self.endpoints
        ]

    def start(self) -> None:
        """Begins to ask, where there is anybody to ask."""
        for thread in self._threads:
            thread.start()

    def stop(self, limit_seconds: float) -> None:
        """Ends; a question under way is given up after the limit."""
        self._stopping.set()
        until = self._monotonic() + limit_seconds
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, until - self._monotonic()))

    def _follow(self, endpoint: Endpoint) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            if self._is_due(endpoint):
                self._ask(endpoint)

    def _is_due(self, endpoint: Endpoint) -> bool:
        if endpoint.asked_at is None:
            return True
        waited = self._monotonic() - endpoint.asked_at
        if waited < _SHORTEST_SECONDS:
            return False
        return waited >= self._interval_seconds or self._wanted(endpoint.model)

    def _asker(self, target: Target) -> Asker:
        frames = Frames(target.url, signed=target.key is not None)

        def deliver(model: str, rank: int | None, table: SegmentTable) -> None:
            self._deliver(frames.frame(model, rank, table))

        return Asker(target, deliver)

    def _ask(self, endpoint: Endpoint) -> None:
        endpoint.asked_at = self._monotonic()
        try:
            results = endpoint.asker.ask()
        except ReportError as error:
            results = [Result(endpoint.model, 0, str(error))]
        except Exception as error:  # noqa: BLE001 this thread asks again all the same
            results = [Result(endpoint.model, 0, repr(error))]
        for result in results:
            endpoint.model = result.model or endpoint.model
            if result.error:
                endpoint.failed += 1
            else:
                endpoint.answered += 1
        said = next((result.error for result in results if result.error), "")
        if said != endpoint.error:
            _log.warning("canary", endpoint=endpoint.target.url, error=said or "answers again")
        endpoint.error = said

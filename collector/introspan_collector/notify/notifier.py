"""Notices in; a thread that tells every target of them out."""

import asyncio
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import structlog

from introspan_collector.notice import Notice
from introspan_collector.notify.delivery import Outcome, Result, wait_seconds
from introspan_collector.notify.letter import Letter
from introspan_collector.notify.outbox import Outbox
from introspan_collector.notify.settings import NotifySettings
from introspan_collector.notify.storage import Storage
from introspan_collector.notify.targets import Target, targets, trust

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NotifyStats:
    """Counts since the start, by target's address; dropped and errors by reason."""

    waiting: Mapping[str, int]
    """Alerts of which the target does not know the newest."""
    delivered: Mapping[str, int]
    failed: Mapping[tuple[str, str], int]
    """Calls that failed or were refused, by address and reason."""
    dropped: Mapping[str, int]
    """Notices given up."""
    storage_errors: Mapping[str, int]
    alertmanagers: Collection[str] = ()
    """Those of the targets that are Alertmanagers."""


class Notifier:
    """Tells Alertmanagers and webhooks of notices, from one thread.

    One slow target holds up no other: their calls wait side by side in an event loop. What could not be told is kept
    below `directory` and told when it can be, after a restart as well. Raises ValueError for a certificate authority
    that cannot be read.
    """

    def __init__(
        self,
        directory: Path,
        settings: NotifySettings,
        clock_unix_seconds: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        chance: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._unix = clock_unix_seconds
        self._clock = clock
        self._chance = chance or random.Random()  # noqa: S311 spreads retries, guards nothing
        self._targets = targets(settings)
        # Here, not in the loop: it takes as long as many calls do.
        public = httpx.create_ssl_context() if self._targets else None
        self._trust = {target.url: trust(target, settings) or public for target in self._targets}
        self._storage = Storage(directory / "outbox.sqlite")
        keys = {target.url: target.key for target in self._targets}
        once = [target.url for target in self._targets if math.isinf(target.resend_seconds)]
        self._outbox = Outbox(self._storage, keys, settings.queue_limit, settings.max_age_seconds, once)
        self._delivered: Counter[str] = Counter()
        self._failed: Counter[tuple[str, str]] = Counter()
        self._loop = asyncio.new_event_loop()
        self._wake = {target.url: asyncio.Event() for target in self._targets}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="introspan-notify", daemon=True)

    def put(self, notice: Notice) -> None:
        """Takes a notice for every target; returns once it is on disk."""
        self._outbox.put(notice, self._clock())
        self._rouse()

    def resume(self, notices: Collection[Notice]) -> None:
        """Takes what is to be told of every open incident, and ends the rest: call it at start.

        A target that was added since, or a lost file, is made good; who knows already is not told again. The rest
        waits for resend_seconds, in which the log is read again from the last checkpoint and may bring it back.
        """
        due = self._clock() + self._settings.resend_seconds
        self._outbox.retain({notice.subject for notice in notices}, self._unix(), due)
        for notice in notices:
            self.put(notice)

    def start(self) -> None:
        """Begins to tell, where there is anybody to tell."""
        if self._targets:
            self._thread.start()

    def stop(self, limit_seconds: float) -> None:
        """Tries once more to tell what waits, and ends within the limit; the rest is told after the next start."""
        self._stopping = True
        if self._thread.is_alive():
            self._rouse()
            self._thread.join(limit_seconds)
            if self._thread.is_alive():
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join()
        self._loop.close()
        self._storage.close()

    @property
    def alive(self) -> bool:
        """Whether the thread runs, or need not."""
        return not self._targets or self._thread.is_alive()

    def stats(self) -> NotifyStats:
        """Counts at this moment."""
        return NotifyStats(
            self._outbox.waiting(),
            dict(self._delivered),
            dict(self._failed),
            dict(self._outbox.dropped),
            dict(self._storage.errors),
            self._settings.alertmanagers,
        )

    def _rouse(self) -> None:
        def set_all() -> None:
            for event in self._wake.values():
                event.set()

        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(set_all)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        serving = self._loop.create_task(self._serve_all())
        serving.add_done_callback(lambda _: self._loop.stop())
        self._loop.run_forever()
        serving.cancel()
        (result,) = self._loop.run_until_complete(asyncio.gather(serving, return_exceptions=True))
        if isinstance(result, Exception):
            _log.error("nobody is told any more", error=repr(result), exc_info=result)

    async def _serve_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for target in self._targets:
                group.create_task(self._serve(target))

    async def _serve(self, target: Target) -> None:
        wake, failures, retry = self._wake[target.url], 0, 0.0
        verify = self._trust[target.url] or True
        async with httpx.AsyncClient(verify=verify, timeout=self._settings.timeout_seconds) as client:
            while True:
                last = self._stopping
                wake.clear()
                now = self._clock()
                most = target.batch if now >= retry or last else 0
                letters = self._outbox.due(target.url, now, self._unix(), most)
                if letters:
                    outcome = await self._tell(target, client, letters)
                    failed = outcome.result is Result.FAILED
                    failures = failures + 1 if failed else 0
                    retry = self._clock() + self._wait_seconds(outcome, failures) if failed else 0.0
                    if not failed:
                        continue
                if last:
                    return
                await _pause(wake, max(self._outbox.next_due(target.url), retry) - self._clock())

    async def _tell(self, target: Target, client: httpx.AsyncClient, letters: list[Letter]) -> Outcome:
        outcome = await target.send(client, letters, self._unix())
        if outcome.result is Result.REFUSED and len(letters) > 1:
            # One that it cannot take must not cost the others: one by one.
            for letter in letters:
                outcome = await self._tell(target, client, [letter])
                if outcome.result is Result.FAILED:
                    break
            return outcome
        again = self._clock() + target.resend_seconds
        if outcome.result is Result.DELIVERED:
            self._delivered[target.url] += len(letters)
            self._outbox.delivered(target.url, letters, again)
            return outcome
        if not self._failed[target.url, outcome.reason]:
            _log.warning(
                "a notice was not taken", target=target.url, reason=outcome.reason, detail=outcome.detail
            )
        self._failed[target.url, outcome.reason] += 1
        if outcome.result is Result.FAILED:
            self._outbox.failed(target.url, letters)
        else:
            self._outbox.refused(target.url, letters, outcome.reason, again)
        return outcome

    def _wait_seconds(self, outcome: Outcome, failures: int) -> float:
        first, limit = self._settings.retry_seconds, self._settings.retry_limit_seconds
        return max(wait_seconds(failures, first, limit, self._chance), outcome.retry_after_seconds)


async def _pause(wake: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(None if math.isinf(seconds) else max(seconds, 0.0)):
            await wake.wait()
    except TimeoutError:
        return  # it is time to send

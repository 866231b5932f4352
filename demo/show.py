"""A running system in, requests and a live picture out, for as long as the plan says."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from pathlib import Path

import httpx
from rich.console import Console
from rich.live import Live

from demo.collected import EMPTY, Snapshot, fetch
from demo.health import check_alive
from demo.outcome import act, plain_act, shown_incident, story
from demo.picture import save
from demo.processes import DemoError, Program
from demo.stage import Stage, save_reference
from demo.traffic import Chat, Tally, send
from demo.view import COLUMNS, Run, Scene, fitting, plain_line, screen

_CONCURRENCY = 8
_MOST_REQUESTS = 10_000
_REFRESH_SECONDS = 1.0
_PLAIN_EVERY_SECONDS = 10.0
# Requests that are still going on so long after the end are given up.
_DRAIN_SECONDS = 10.0
_ANSWER_SECONDS = 30.0
# Exporters send at least every second; one more for the collector to count it.
_SETTLE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asked for. seconds None: until Ctrl-C; reference: the file to build one for, if any."""

    model: str
    seconds: float | None = None
    screenshot: Path | None = None
    reference: Path | None = None


@dataclass(slots=True)
class Show:
    """One performance: requests going out, and what the collector says of them coming back."""

    plan: Plan
    console: Console
    collector: Program
    collector_address: str
    stage: Stage
    chats: Iterator[Chat]
    tally: Tally
    started_seconds: float
    """When the demonstration began, on the clock."""
    clock: Callable[[], float] = time.monotonic
    _began: float = field(default=0.0, init=False)
    _first_signal_seconds: float | None = field(default=None, init=False)
    _snapshot: Snapshot = field(default=EMPTY, init=False)

    async def run(self) -> None:
        """Plays it to its end and prints a summary, after Ctrl-C too. Raises DemoError."""
        self._began = self.clock()
        traffic = asyncio.create_task(self._send())
        try:
            async with httpx.AsyncClient(base_url=self.collector_address, timeout=_ANSWER_SECONDS) as client:
                if self.console.is_terminal:
                    await self._live(client, traffic)
                else:
                    await self._plain(client, traffic)
                await asyncio.sleep(_SETTLE_SECONDS)
                await self._look(client)
                if self.plan.reference is not None:
                    self.console.print(await save_reference(client, self.plan.model, self.plan.reference))
        finally:
            traffic.cancel()
            # Its connections have to be closed: a server that is asked to end waits for them.
            await asyncio.gather(traffic, return_exceptions=True)
            await self.stage.close()
            self._summarise()
        if self._first_signal_seconds is None:
            raise DemoError(
                "no signal reached the collector; its log says why\n" + self.collector.log_tail(15)
            )

    async def _send(self) -> None:
        server = self.stage.server
        source = islice(self.chats, _MOST_REQUESTS)
        await send(server.address, source, self.tally, _CONCURRENCY, server.may_ask, lambda: self._left() > 0)

    def _left(self) -> float:
        if self.plan.seconds is None:
            return inf
        # While the server is exchanged nothing is served: that time is given on top.
        return self._began + self.plan.seconds + self.stage.server.away_seconds - self.clock()

    def _going(self, traffic: asyncio.Task[None]) -> bool:
        if traffic.done():
            traffic.result()  # raises what went wrong in it
            # With no seconds given the picture stays until Ctrl-C.
            return self.plan.seconds is None
        return self._left() > -_DRAIN_SECONDS

    async def _live(self, client: httpx.AsyncClient, traffic: asyncio.Task[None]) -> None:
        with Live(console=self.console, auto_refresh=False, vertical_overflow="crop") as live:
            while self._going(traffic):
                await self._look(client)
                picture = fitting(self._now(), self._snapshot, self._scene(), self.console)
                live.update(picture, refresh=True)
                await asyncio.sleep(_REFRESH_SECONDS)

    async def _plain(self, client: httpx.AsyncClient, traffic: asyncio.Task[None]) -> None:
        said, told = -inf, ""
        while self._going(traffic):
            await self._look(client)
            line = plain_act(self.stage)
            if line != told:
                told = line
                self.console.print(line, markup=False, soft_wrap=True)
            if self.clock() - said >= _PLAIN_EVERY_SECONDS:
                said = self.clock()
                self.console.print(plain_line(self._now(), self._snapshot), markup=False, soft_wrap=True)
            await asyncio.sleep(_REFRESH_SECONDS)

    async def _look(self, client: httpx.AsyncClient) -> None:
        for program in (self.collector, self.stage.server.program):
            if program is not None:
                check_alive(program)
        self._snapshot = await fetch(client)
        await self.stage.step(client)
        if self._first_signal_seconds is None and self._snapshot.layers:
            self._first_signal_seconds = self.clock() - self._began

    def _now(self) -> Run:
        addresses = {
            "pages": f"{self.collector_address}/",
            "metrics": f"{self.collector_address}/metrics",
            "alarms": f"{self.collector_address}/api/v1/alarms",
            "API": f"{self.collector_address}/api/v1/latest",
            "model": f"{self.stage.server.address}/v1/chat/completions",
        }
        return Run(self.plan.model, self.clock() - self._began, self.plan.seconds, self.tally, addresses)

    def _scene(self) -> Scene:
        return Scene(act(self.stage), self.stage.seen, shown_incident(self.stage))

    def _summarise(self) -> None:
        run = self._now()
        if not self.console.is_terminal:
            self.console.print(screen(run, self._snapshot, self._scene(), COLUMNS), width=COLUMNS)
        if self._first_signal_seconds is not None:
            since_start = self._began + self._first_signal_seconds - self.started_seconds
            self.console.print(
                f"first signal {self._first_signal_seconds:.1f} s after the server was ready, "
                f"{since_start:.0f} s after the start of the demonstration"
            )
        self.console.print(plain_line(run, self._snapshot), markup=False, soft_wrap=True)
        for line in story(self.stage.director, self.clock()):
            self.console.print(line, markup=False, soft_wrap=True)
        for failure in self.tally.failures:
            self.console.print(f"a request failed: {failure}", markup=False)
        if self.plan.screenshot is not None:
            save(screen(run, self._snapshot, self._scene(), COLUMNS), self.plan.screenshot)
            self.console.print(f"wrote {self.plan.screenshot}")

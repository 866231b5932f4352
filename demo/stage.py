"""What the collector sees in; faults begun and taken back, and references handed over, as the performance goes on."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from demo.faults import Fault
from demo.phases import Director, Phase
from demo.processes import DemoError
from demo.server import ModelServer
from demo.watched import NOTHING, Watched, fetch


@dataclass(slots=True)
class Stage:
    """The system, and what is done to it. saved: file of a reference that was built earlier, None for none."""

    model: str
    server: ModelServer
    fault: Fault
    director: Director
    saved: Path | None
    clock: Callable[[], float] = time.monotonic
    seen: Watched = NOTHING
    note: str = ""
    """What became of the reference that was built earlier."""
    _change: asyncio.Task[None] | None = None

    async def step(self, client: httpx.AsyncClient) -> None:
        """Looks, and does what is due. Raises httpx.HTTPError and DemoError."""
        self.seen = await fetch(client, self.model)
        # An identity is compared only once something was served.
        if self.saved is not None and self.seen.clusters:
            await self._hand_over(client, self.saved)
            self.saved = None
            return
        if self._change is not None and self._change.done():
            self._change.result()
        before = self.director.phase
        phase = self.director.step(self.seen, self.clock())
        if phase is not before and phase is Phase.FAULT:
            self._change = asyncio.create_task(self.fault.begin())
        if phase is not before and phase is Phase.OVER:
            self._change = asyncio.create_task(self.fault.end())

    async def close(self) -> None:
        """Gives up what is under way."""
        if self._change is not None:
            self._change.cancel()
            await asyncio.gather(self._change, return_exceptions=True)

    async def _hand_over(self, client: httpx.AsyncClient, file: Path) -> None:
        answer = await client.post(
            "/api/v1/references/import",
            content=await asyncio.to_thread(file.read_bytes),
            headers={"content-type": "application/zip"},
        )
        if answer.is_success:
            shown = Path("~", file.relative_to(Path.home())) if file.is_relative_to(Path.home()) else file
            self.note = f"compared with the reference of make demo-reference, {shown}"
        else:
            remedy = answer.json()["error"]["remedy"]
            self.note = f"{file} was refused, a small provisional reference is built instead: {remedy}"


async def save_reference(client: httpx.AsyncClient, model: str, file: Path) -> str:
    """Freezes what was collected and writes it to a file; what was written, in words. Raises DemoError."""
    # Minutes of traffic that has only begun: whether its halves are alike says little yet.
    body = {"model": model, "force": True}
    promoted = await client.post("/api/v1/references/promote", json=body, timeout=60.0)
    if not promoted.is_success:
        raise DemoError(f"no reference was built: {promoted.json()['error']['remedy']}")
    exported = await client.get("/api/v1/references/export", params={"model": model}, timeout=60.0)
    if not exported.is_success:
        raise DemoError(f"the reference was not exported: {exported.json()['error']['remedy']}")
    await asyncio.to_thread(_write, file, exported.content)
    return f"wrote {file}, {len(exported.content)} bytes, which make demo compares with from now on"


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)

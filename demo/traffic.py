"""Chat requests in, sent to an OpenAI-compatible server, several at once; what became of them out."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx

_TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Chat:
    """One request: what goes to /v1/chat/completions, and with which headers."""

    body: dict[str, object]
    headers: dict[str, str]


@dataclass(slots=True)
class Tally:
    """What became of the requests so far. last_trace_id is that of the last one that was answered."""

    sent: int = 0
    answered: int = 0
    failed: int = 0
    output_tokens: int = 0
    last_trace_id: str = ""
    failures: list[str] = field(default_factory=list)
    quiet: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while no request is under way, once there was one."""

    @property
    def in_flight(self) -> int:
        """Requests that were sent and have not come back."""
        return self.sent - self.answered - self.failed


async def send(
    address: str,
    source: Iterator[Chat],
    tally: Tally,
    concurrency: int,
    gate: asyncio.Event,
    more: Callable[[], bool],
) -> None:
    """Keeps `concurrency` requests in flight while the gate is open, until the source ends or `more` says no."""
    limits = httpx.Limits(max_connections=concurrency)
    async with httpx.AsyncClient(base_url=address, timeout=_TIMEOUT_SECONDS, limits=limits) as client:

        async def worker() -> None:
            while more() and (chat := next(source, None)) is not None:
                await gate.wait()
                await _ask(client, chat, tally)

        await asyncio.gather(*(worker() for _ in range(concurrency)))


async def _ask(client: httpx.AsyncClient, chat: Chat, tally: Tally) -> None:
    tally.sent += 1
    tally.quiet.clear()
    try:
        await _answer(client, chat, tally)
    finally:
        if not tally.in_flight:
            tally.quiet.set()


async def _answer(client: httpx.AsyncClient, chat: Chat, tally: Tally) -> None:
    try:
        async with client.stream(
            "POST", "/v1/chat/completions", json=chat.body, headers=chat.headers
        ) as reply:
            text = (await reply.aread()).decode()
            reply.raise_for_status()
    except httpx.HTTPError as error:
        tally.failed += 1
        # Five tell the cause; the rest is a count.
        if len(tally.failures) < 5:
            tally.failures.append(f"{type(error).__name__}: {error}")
        return
    tally.answered += 1
    tally.output_tokens += _output_tokens(text, streamed=bool(chat.body["stream"]))
    tally.last_trace_id = chat.headers["traceparent"].split("-")[1]


def _output_tokens(text: str, *, streamed: bool) -> int:
    if streamed:
        # The last event before [DONE] carries the usage.
        events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
        text = events[-1]
    usage: dict[str, int] = json.loads(text)["usage"]
    return usage["completion_tokens"]

"""Requests as clients of an OpenAI server send them in; what came back, and when, out."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
from deployment import MODEL

CHAT, COMPLETION = "chat/completions", "completions"
_TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True)
class Ask:
    """One request. body is merged over defaults; trace is (trace id, span id) in hexadecimal."""

    text: str
    path: str = CHAT
    trace: tuple[str, str] | None = None
    id: str | None = None
    stream: bool = False
    tokens: int = 8
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    leave_after: int | None = None
    """Chunks of a stream after which the client closes the connection."""

    def payload(self) -> dict[str, Any]:
        # Sampled: a small model decoding greedily repeats itself, and repetition cuts segments short.
        common = {"model": MODEL, "max_tokens": self.tokens, "ignore_eos": True, "temperature": 1.0}
        prompt = (
            {"messages": [{"role": "user", "content": self.text}]}
            if self.path == CHAT
            else {"prompt": self.text}
        )
        return {**common, **prompt, "stream": self.stream, **self.body}

    def all_headers(self) -> dict[str, str]:
        headers = dict(self.headers)
        if self.trace is not None:
            headers["traceparent"] = f"00-{self.trace[0]}-{self.trace[1]}-01"
        if self.id is not None:
            headers["X-Request-Id"] = self.id
        return headers


@dataclass(frozen=True)
class Answer:
    """What the client saw: status, request id, token usage (of whole answers), arrival of each chunk in seconds."""

    status: int
    id: str
    usage: dict[str, Any]
    arrivals: list[float]


async def ask(client: httpx.AsyncClient, one: Ask) -> Answer:
    url = f"/v1/{one.path}"
    if not one.stream:
        got = await client.post(url, json=one.payload(), headers=one.all_headers())
        found = got.json()
        return Answer(got.status_code, found.get("id", ""), found.get("usage", {}), [])
    request_id, arrivals = "", []
    async with client.stream("POST", url, json=one.payload(), headers=one.all_headers()) as got:
        async for line in got.aiter_lines():
            if not line.startswith("data: {"):
                continue
            arrivals.append(time.monotonic())
            request_id = json.loads(line.removeprefix("data: "))["id"]
            if len(arrivals) == one.leave_after:
                break
    return Answer(got.status_code, request_id, {}, arrivals)


def talk(address: str, *asks: Ask) -> list[Answer]:
    """Sends requests at once; their answers in order."""

    async def all_at_once() -> list[Answer]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=f"http://{address}", timeout=_TIMEOUT_SECONDS, limits=limits
        ) as client:
            return await asyncio.gather(*(ask(client, one) for one in asks))

    return asyncio.run(all_at_once())

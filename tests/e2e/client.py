"""Requests as clients of an OpenAI server send them in; what came back, and when, out."""

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from deployment import MODEL

CHAT, COMPLETION, RESPONSE = "chat/completions", "completions", "responses"
SENTENCE = "Seven grey herons stood in the shallow water and waited for the tide. "
_TIMEOUT_SECONDS = 300.0


def name() -> str:
    """A request id that nobody else has."""
    return uuid.uuid4().hex


def trace() -> tuple[str, str]:
    """A trace id and a span id."""
    return uuid.uuid4().hex, uuid.uuid4().hex[:16]


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
    leave: Callable[[list[float]], bool] = lambda _: False
    """Asked after each chunk of a stream, with the arrivals so far; True closes the connection."""

    def payload(self) -> dict[str, Any]:
        # Sampled: a small model decoding greedily repeats itself, and repetition cuts segments short.
        common = {"model": MODEL, "temperature": 1.0, "stream": self.stream, **self.body}
        if self.path == RESPONSE:
            return {"input": self.text, "max_output_tokens": self.tokens, **common}
        limits = {"max_tokens": self.tokens, "ignore_eos": True}
        if self.path == COMPLETION:
            return {"prompt": self.text, **limits, **common}
        return {"messages": [{"role": "user", "content": self.text}], **limits, **common}

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
            chunk = json.loads(line.removeprefix("data: "))
            request_id = request_id or chunk.get("id") or chunk["response"]["id"]
            if one.leave(arrivals):
                break
    return Answer(got.status_code, request_id, {}, arrivals)


def choices(address: str, asks: Sequence[Ask]) -> list[Any]:
    """Sends requests one after another; what each was answered, as JSON.

    One sample at a time: which ones share a step, and with it the last bit, is then not up to the clock.
    """
    with httpx.Client(base_url=f"http://{address}/v1/", timeout=_TIMEOUT_SECONDS) as client:
        return [
            client.post(one.path, json=one.payload()).raise_for_status().json()["choices"] for one in asks
        ]


FIXED = (
    Ask(
        "Why is the sky blue?",
        CHAT,
        tokens=40,
        body={"temperature": 0.0, "logprobs": True, "top_logprobs": 5},
    ),
    Ask(SENTENCE * 12, COMPLETION, tokens=24, body={"temperature": 0.0, "logprobs": 5}),
    Ask(SENTENCE * 12, COMPLETION, tokens=24, body={"seed": 7, "top_p": 0.9, "logprobs": 5}),
    Ask("Once upon", COMPLETION, tokens=24, body={"seed": 8, "logprobs": 5, "presence_penalty": 0.5}),
    Ask("Count to ten.", CHAT, tokens=40, body={"seed": 9, "logprobs": True, "top_logprobs": 5}),
)
"""Requests whose answers are the same each time, with log-probabilities."""


def talk(address: str, *asks: Ask) -> list[Answer]:
    """Sends requests at once; their answers in order."""

    async def all_at_once() -> list[Answer]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=f"http://{address}", timeout=_TIMEOUT_SECONDS, limits=limits
        ) as client:
            return await asyncio.gather(*(ask(client, one) for one in asks))

    return asyncio.run(all_at_once())

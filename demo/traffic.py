"""A seed in, varied chat requests to an OpenAI-compatible server out, and what became of them."""

import asyncio
import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx

_PASSAGE = (
    "The lighthouse keeper counted the ships every evening. Some carried grain, some carried letters, and "
    "one, which came only in autumn, carried nothing at all. He wrote each of them down in a book with a "
    "blue cover, with the hour, the wind and the colour of the sails. "
)

_PROMPTS = (
    "What is the capital of Portugal?",
    "Explain in two sentences why the sky is blue.",
    "Write a Python function that reverses a linked list, with a docstring.",
    "def fibonacci(n):\n    # complete this function, iteratively",
    "Give me five names for a small bakery in a harbour town.",
    "Écris une courte phrase sur la pluie.",
    "日本の首都はどこですか。",
    "Напиши одно предложение о зиме.",
    "اكتب جملة قصيرة عن البحر.",
    "A train leaves at 9:40 and arrives at 13:05. How long does it travel? Think step by step.",
    "Repeat the word 'again' as often as you can.",
    "List the prime numbers below 50.",
    "Tell a short story about a robot who learns to cook.",
    "Translate to German: The meeting has been moved to Thursday.",
    "Write an SQL query that counts orders per customer in 2024.",
    'Return a JSON object with the keys "name", "age" and "city".',
    "Summarise this in one sentence: " + _PASSAGE * 2,
    "What did the keeper write down?\n" + _PASSAGE * 8,
)

_TEMPERATURES = (0.0, 0.3, 0.7, 1.0, 1.3)
_LENGTHS_TOKENS = (8, 24, 64, 96, 160)
_CLIENTS = 6
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


def chats(model: str, seed: int) -> Iterator[Chat]:
    """Requests without end; the same seed gives the same ones."""
    draw = random.Random(seed)  # noqa: S311 - variety, not secrecy
    for number in itertools.count():
        stream = number % 2 == 0
        body: dict[str, object] = {
            "model": model,
            "messages": [{"role": "user", "content": draw.choice(_PROMPTS)}],
            "temperature": draw.choice(_TEMPERATURES),
            "top_p": draw.choice((1.0, 0.9)),
            "max_tokens": draw.choice(_LENGTHS_TOKENS),
            "stream": stream,
        }
        if stream:
            body["stream_options"] = {"include_usage": True}
        headers = {
            "traceparent": f"00-{draw.getrandbits(128):032x}-{draw.getrandbits(64):016x}-01",
            "Authorization": f"Bearer demo-client-{draw.randrange(_CLIENTS)}",
        }
        yield Chat(body, headers)


async def send(
    address: str, source: Iterator[Chat], tally: Tally, concurrency: int, more: Callable[[], bool]
) -> None:
    """Keeps `concurrency` requests in flight until the source ends or `more` says no."""
    limits = httpx.Limits(max_connections=concurrency)
    async with httpx.AsyncClient(base_url=address, timeout=_TIMEOUT_SECONDS, limits=limits) as client:

        async def worker() -> None:
            while more() and (chat := next(source, None)) is not None:
                await _ask(client, chat, tally)

        await asyncio.gather(*(worker() for _ in range(concurrency)))


async def _ask(client: httpx.AsyncClient, chat: Chat, tally: Tally) -> None:
    tally.sent += 1
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

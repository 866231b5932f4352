"""A seed in, varied chat requests of many callers out, of healthy traffic and of traffic that is new."""

import base64
import itertools
import random
from collections.abc import Callable, Iterator

from demo.traffic import Chat

_PASSAGE = (
    "The lighthouse keeper counted the ships every evening. Some carried grain, some carried letters, and "
    "one, which came only in autumn, carried nothing at all. He wrote each of them down in a book with a "
    "blue cover, with the hour, the wind and the colour of the sails. "
)
_QUESTIONS = (
    "What is the capital of {country}?",
    "Explain in two sentences why {thing} is {colour}.",
    "Write a Python function that counts the {thing}s in a list, with a docstring.",
    "def price_of_{thing}(n):\n    # complete this function, iteratively",
    "Give me {number} names for a small {shop} in {country}.",
    "Écris une courte phrase sur {number} jours de pluie.",
    "{number}月の天気はどうですか。",
    "Напиши одно предложение о зиме, {number} слов.",
    "A train leaves at {number}:40 and arrives at 13:05. How long does it travel? Think step by step.",
    "List {number} prime numbers below 50.",
    "Tell a short story about a {colour} robot who works in a {shop}.",
    "Translate to German: The meeting about the {thing} has been moved to Thursday.",
    "Write an SQL query that counts orders of {colour} {thing}s per customer.",
    'Return a JSON object with the keys "{thing}", "{colour}" and "city".',
    "How many {thing}s fit into a {shop}?",
    "Summarise this in {number} words: " + _PASSAGE,
)
_WORDS = {
    "country": ("Portugal", "Norway", "Kenya", "Peru", "Japan", "Canada", "Greece", "Vietnam"),
    "thing": ("boat", "lamp", "letter", "window", "stone", "clock", "apple", "bridge"),
    "colour": ("blue", "red", "green", "yellow", "white", "black"),
    "shop": ("bakery", "library", "harbour", "school", "garden"),
    "number": ("2", "3", "4", "5", "6", "7", "8", "9"),
}
_TEMPERATURES = (0.0, 0.7, 1.0, 1.0, 1.3)
# Short: what counts as evidence is how many callers are heard of, not how long they are answered.
_LENGTHS_TOKENS = (4, 6, 8, 16)
_CALLERS = 400
_PAYLOAD_BYTES = (40, 60, 80)


def chats(model: str, seed: int, is_new: Callable[[], bool] = lambda: False) -> Iterator[Chat]:
    """Requests without end; the same seed gives the same ones. is_new: whether callers now send something else."""
    draw = random.Random(seed)  # noqa: S311 - variety, not secrecy
    for number in itertools.count():
        stream = number % 2 == 0
        body: dict[str, object] = {
            "model": model,
            "messages": [{"role": "user", "content": _payload(draw) if is_new() else _question(draw)}],
            "temperature": draw.choice(_TEMPERATURES),
            "top_p": draw.choice((1.0, 0.9)),
            "max_tokens": draw.choice(_LENGTHS_TOKENS),
            "stream": stream,
        }
        if stream:
            body["stream_options"] = {"include_usage": True}
        headers = {
            "traceparent": f"00-{draw.getrandbits(128):032x}-{draw.getrandbits(64):016x}-01",
            "Authorization": f"Bearer demo-caller-{draw.randrange(_CALLERS)}",
        }
        yield Chat(body, headers)


def _question(draw: random.Random) -> str:
    words = {name: draw.choice(choices) for name, choices in _WORDS.items()}
    return draw.choice(_QUESTIONS).format(**words)


def _payload(draw: random.Random) -> str:
    """What no caller sent before: bytes, as where an attachment ends up in the prompt."""
    return base64.b64encode(draw.randbytes(draw.choice(_PAYLOAD_BYTES))).decode()

"""A seed in, short texts of one kind without end out, each another one: letters in English, and Python."""

import random
from collections.abc import Iterator

_WHO = (
    "The harbour master",
    "My sister",
    "An old pilot",
    "The baker",
    "Her neighbour",
    "The new teacher",
    "A clerk",
)
_DID = ("wrote", "told me", "remembered", "was sure", "forgot", "had heard", "dreamt")
_WHAT = ("the ferry", "the garden", "a letter from Bergen", "the blue house", "the last train", "the market")
_HOW = ("would be late", "was much too small", "had been sold", "would never change", "was worth a visit")
_WHEN = ("on Monday", "in the spring", "before the storm", "after dinner", "years ago", "at half past six")

_NAMES = ("total", "items", "result", "values", "index", "buffer", "node", "count")
_CALLS = ("len", "sorted", "max", "list", "iter", "sum")
_SIGNS = ("+", "-", "*", "//", "%", "<<")


def letters(seed: int) -> Iterator[str]:
    """Sentences as people write them."""
    draw = random.Random(seed)
    while True:
        who, did, what, how, when = (draw.choice(part) for part in (_WHO, _DID, _WHAT, _HOW, _WHEN))
        yield f"{when.capitalize()}, {who[0].lower()}{who[1:]} {did} that {what} {how}, and"


def code(seed: int) -> Iterator[str]:
    """Lines of programs."""
    draw = random.Random(seed)
    while True:
        a, b, c = draw.sample(_NAMES, 3)
        call, sign, number = draw.choice(_CALLS), draw.choice(_SIGNS), draw.randrange(2, 99)
        yield f"{a} = [{call}({b}[i]) {sign} {number} for i in range({c})]\nif not {a}:\n    {b}["

"""Texts and a seed in, the steps of a server that reads them together out: who is beside whom, in what chunks."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK_TOKENS = 16
"""A prefix is taken from the cache in blocks of so many tokens."""

_BUDGETS = (48, 96, 160, 256, 384, 640, 1024)
_NEIGHBOUR_TOKENS = (4, 72)


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """One request: token ids [n], of which the first `prompt` were asked. It waits for `after`, "" for none.

    cached: tokens whose keys and values are taken from that request instead of being computed.
    """

    ids: NDArray[np.int64]
    prompt: int
    after: str = ""
    cached: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """Positions start to end of one request, computed in one step."""

    name: str
    start: int
    end: int


Step = tuple[Chunk, ...]


def neighbour(vocabulary: int, seed: int) -> Text:
    """A request of somebody else, which shares steps with ours."""
    random = np.random.default_rng([seed, 1])
    ids = random.integers(0, vocabulary, random.integers(*_NEIGHBOUR_TOKENS))
    return Text(ids, len(ids) - 1 - int(random.integers(0, 3)))


def steps(texts: Mapping[str, Text], seed: int) -> list[Step]:
    """Continuous batching with chunked prefill: order and tokens a step are drawn; decoding is token by token."""
    random = np.random.default_rng([seed, 2])
    budget = int(random.choice(_BUDGETS))
    order = [str(name) for name in random.permutation(sorted(texts))]
    done = {name: texts[name].cached for name in order}
    made = []
    while any(done[name] < len(texts[name].ids) for name in order):
        left, chunks = budget, []
        before = dict(done)
        for name in order:
            text = texts[name]
            # What it waits for must have been computed in an earlier step.
            waits = text.after and before[text.after] < len(texts[text.after].ids)
            start = done[name]
            if waits or left == 0 or start == len(text.ids):
                continue
            end = start + 1 if start >= text.prompt else min(start + left, text.prompt)
            chunks.append(Chunk(name, start, end))
            done[name] = end
            left -= end - start
        made.append(tuple(chunks))
    return made

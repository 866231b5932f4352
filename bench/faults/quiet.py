"""Texts and a tokenizer in, sets of healthy requests for the nulls out: asked as usual, alone, cached and in chunks.

Sets come in slices of the same mixture, so that a run that stops early has all strata in their proportions.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from bench.faults import texts
from bench.faults.second_protocol import SECOND
from bench.faults.third_protocol import THIRD
from bench.faults.traffic import Call, Set

_NULLS: Mapping[str, Any] = SECOND["nulls"]  # Any: JSON
_TOKENS: int = _NULLS["prompt_tokens"]
_SLICES: int = THIRD["nulls"]["slices"]
REFERENCE, USUAL = "reference", "usual"
AGAIN = ("alone", "cached", "chunked")
"""The usual requests asked again, each time with something else about the batch or the cache."""


# Any: a tokenizer of transformers, which is untyped.
def sets(tokenizer: Any) -> Iterator[Set]:
    """Every set, the most wanted first. Reference and usual requests share no text."""
    drawn = {
        name: _shuffled(prompts, number) for number, (name, prompts) in enumerate(_prompts(tokenizer).items())
    }
    for kind, number in _order():
        first = number if kind == REFERENCE else _NULLS["slices"][REFERENCE] + number
        for name, size in _NULLS["a_slice"].items():
            chosen = drawn[name][first * size : (first + 1) * size]
            yield Set(
                f"{kind}-{name}-{number:02}",
                f"null: {kind}",
                partial(_calls, chosen),
                fault=kind if kind in AGAIN else "",
            )


def _order() -> Iterator[tuple[str, int]]:
    slices: Mapping[str, int] = _NULLS["slices"]
    # Two of the reference for every three of the usual ones, so that a run cut short has both.
    turns = np.linspace(0, slices[REFERENCE], slices[USUAL] + 1).round().astype(int).tolist()
    for number, (before, after) in enumerate(pairwise(turns)):
        for i in range(before, after):
            yield REFERENCE, i
        yield USUAL, number
    for number in range(slices[USUAL]):
        for kind in AGAIN:
            yield kind, number
    # What a later protocol added.
    for number in range(slices[USUAL], _SLICES):
        for kind in (USUAL, *AGAIN):
            yield kind, number


def _calls(prompts: list[list[int]]) -> list[Call]:
    return [Call(ids, _NULLS["answer_tokens"], 1.0) for ids in prompts]


def _prompts(tokenizer: Any) -> dict[str, list[list[int]]]:
    """Token ids of every stratum's requests, no two the same."""

    def plain(text: str) -> list[int]:
        return list(tokenizer(text).input_ids)

    def chat(text: str) -> list[int]:
        said = tokenizer.decode(plain(text)[:_TOKENS])
        messages = [{"role": "user", "content": said}]
        return plain(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    passages = [plain(one.content) for one in texts.passages()]
    windows = [ids[i : i + _TOKENS] for ids in passages for i in range(0, len(ids) - _TOKENS + 1, _TOKENS)]
    return {
        "claims": _distinct(plain(one.content)[:_TOKENS] for one in texts.claims()),
        "passages": _distinct(windows),
        "chat": _distinct(chat(one.content) for one in (*texts.questions(), *texts.instructions())),
        "exams": _distinct(plain(one.content)[:_TOKENS] for one in texts.exams()),
    }


def _distinct(prompts: Iterable[list[int]]) -> list[list[int]]:
    return [list(ids) for ids in dict.fromkeys(map(tuple, prompts))]


def _shuffled(prompts: list[list[int]], number: int) -> list[list[int]]:
    order = np.random.default_rng([SECOND["seed"], number]).permutation(len(prompts))
    return [prompts[i] for i in order.tolist()]

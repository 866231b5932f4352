"""Answers of an engine whose greedy tokens are wrong at times in, how many tokens it takes to be told out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.faults import texts
from bench.faults.fourth_protocol import FOURTH, check_fourth_seal
from bench.faults.result import Claim
from bench.faults.rows import GREEDY
from bench.faults.tables import load
from bench.faults.traffic import Call, Set, Traffic
from introspan_wire.codec import SegmentTable
from introspan_wire.signals import Kind

PLAN = "sparse"
"""The plan of `bench.faults.gather` that measures as a server does by default."""

_GREEDY = FOURTH["greedy"]
_NAME = "greedy"
Tokens = NDArray[np.float64]


# Any: a tokenizer of transformers, which is untyped.
def sets(tokenizer: Any) -> Iterator[Set]:
    """The one set: answers drawn greedily, one request after another, so that tokens come in a known order."""

    def calls() -> list[Call]:
        chosen = texts.drawn(texts.questions(), _GREEDY["requests"], FOURTH["seed"])
        traffic = Traffic(tokenizer)
        return [Call(traffic.ids(text), _GREEDY["answer_tokens"], 0.0) for text in chosen]

    yield Set(_NAME, "sampler", calls, fault="greedy", is_apart=True)


def claim(folder: Path) -> Claim:
    """Tokens from the first wrong one, measured or not, to the page."""
    check_fourth_seal()
    target = FOURTH["targets"]["greedy_tokens"]
    text = (
        "greedy sampler not greedy: delivered tokens to the page from the first wrong one, measured or not, at the "
        f"default stride of {_GREEDY['token_stride']}"
    )
    path = folder / f"{_NAME}.npz"
    if not path.exists():
        return Claim(text, None, target, at_most=True, row=GREEDY)
    tables, extra = load(path)
    shape = (_GREEDY["requests"], _GREEDY["answer_tokens"])
    wrong = extra["wrong"][: shape[0] * shape[1]].reshape(shape) > 0
    found = delays(wrong, shown([tables[kind] for kind in (Kind.PROMPT, Kind.DECODED)], shape[0]))
    low, high = np.quantile(found, [0.025, 0.975])
    text = f"{text}; median of {len(found)} orders of {shape[0]} answers"
    return Claim(
        text, float(np.median(found)), target, at_most=True, low=float(low), high=float(high), row=GREEDY
    )


def shown(tables: list[SegmentTable], requests: int) -> Tokens:
    """Tokens of each answer until the end of the first segment that shows a wrong one; infinite where none does."""
    first = np.full(requests, np.inf)
    for table in tables:
        signals = [column.signal for column in table.schema.columns]
        shows = table.values[:, signals.index("sampler.greedy_mismatch")] > 0
        number = np.array([int(name.rsplit(":", 1)[1]) for name in table.request_id])
        # The row of a prompt's last token is that of the first token drawn.
        end = table.token_start.astype(np.float64) + table.token_count - table.prompt_tokens + 1
        np.minimum.at(first, number[shows], end[shows])
    return first


def delays(wrong: NDArray[np.bool_], shown_after: Tokens) -> Tokens:
    """Delivered tokens from the first wrong one until it is shown that there are any, for many orders of the answers.

    wrong: [requests, tokens], some of them; shown_after: [requests], tokens of each, infinite where nothing shows.
    """
    random = np.random.default_rng(FOURTH["seed"])
    found = []
    for _ in range(_GREEDY["orders"]):
        order = random.permutation(len(wrong))
        begun = int(np.argmax(wrong[order].ravel()))
        after = np.arange(len(order)) * wrong.shape[1] + shown_after[order]
        found.append(float(after[after > begun].min(initial=np.inf)) - begun)
    return np.array(found)

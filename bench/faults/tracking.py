"""Rounds of answers in, what log-probability tracking (2512.03816) would say of them out: the output-only baseline.

It looks at the first generated token's log-probabilities alone, averaged over rounds. LT asks one prompt; LT4 asks the
four texts of the canary, in the same rounds and batches.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.canary.answer import Answer

PROMPTS = ("short", "long", "chat", "extend")
"""LT4's; the first is LT's."""

Vector = NDArray[np.float64]


class Tracker:
    """Knows a healthy model's likeliest first tokens, and their mean log-probabilities [4, 20]."""

    def __init__(self, rounds: Sequence[Mapping[str, Answer]]) -> None:
        self._tokens = {prompt: _first(rounds[0][prompt])[0] for prompt in PROMPTS}
        self.reference: Vector = np.mean([self.logprobs(one) for one in rounds], axis=0)

    def logprobs(self, answers: Mapping[str, Answer]) -> Vector:
        """A round's log-probabilities of those tokens [4, 20]; the least that is given for those that are not."""
        found = []
        for prompt in PROMPTS:
            tokens, given = _first(answers[prompt])
            same = tokens[None] == self._tokens[prompt][:, None]
            found.append(np.where(same.any(axis=1), given[same.argmax(axis=1)], given.min()))
        return np.stack(found)


def distance(reference: Vector, rounds: Sequence[Vector], way: str, prompts: int) -> float:
    """How far the mean of rounds is from the reference, by one of the protocol's three ways, nats."""
    apart = np.abs(np.mean(rounds, axis=0) - reference)[:prompts]
    if way == "root mean square":
        return float(np.sqrt((apart**2).mean()))
    return float(apart.mean() if way == "mean |difference|" else apart.max())


def _first(answer: Answer) -> tuple[NDArray[np.int64], Vector]:
    """The likeliest first tokens [20] and their log-probabilities."""
    row = int(np.flatnonzero(answer.outputs.position == answer.outputs.prompt_tokens - 1)[0])
    return answer.outputs.top_token[row], answer.outputs.top_logprob[row]

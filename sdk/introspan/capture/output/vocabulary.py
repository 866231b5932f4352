"""One row of raw logits and its delivered token in; entropy, margin, log-probability and non-finite values out.

Row by row: what is as wide as a vocabulary stays in a core's cache from one pass to the next, and many rows of it
do not.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

# Finite, so that a logit of −Inf adds 0 · x = 0 to t; eˣ of it is 0.
_NO_PROBABILITY = -1e30


@dataclass(frozen=True, slots=True)
class OutputStatistics:
    """A NaN or +Inf in the row gives NaN in all but nonfinite; −Inf has probability 0."""

    entropy: float
    margin: float
    logprob: float
    nonfinite: int


class Vocabulary:
    """The row of logits at hand as x = logit − max and as weights, float32 [V]; made once, for rows on the host."""

    def __init__(self, size: int) -> None:
        # The same memory twice: NumPy finds the largest value faster, torch sums and exponentiates faster.
        with torch.inference_mode(mode=False):  # the last rows are computed when the engine's mode is over
            self._x, self._weight = torch.empty(size), torch.empty(size)
        self._x_array: NDArray[np.float32] = self._x.numpy()

    def statistics(self, logits: NDArray[np.float32], token: int) -> OutputStatistics:
        """What raw logits [V] say of the next token; the row is at hand from then on, if it is measured.

        entropy = ln l − t/l and logprob in nats, margin = p₁ − p₂, with l = Σ eˣ, t = Σ x eˣ.
        """
        x = self._x_array
        likeliest = int(logits.argmax())
        largest = logits[likeliest]
        if not math.isfinite(largest):
            return OutputStatistics(math.nan, math.nan, math.nan, _count_nonfinite(logits))
        np.subtract(logits, largest, out=x)
        # The runner-up is the largest where the leader is not; a top-k would take longer than all the rest.
        x[likeliest] = -math.inf
        runner_up = float(x.max())
        x[likeliest] = 0.0
        e = torch.exp(self._x, out=self._weight)
        l, t = float(e.sum()), float(torch.dot(e, self._x))  # noqa: E741 - the names in the formula
        nonfinite = 0
        if math.isnan(t):
            nonfinite = _count_nonfinite(logits)
            t = float(torch.dot(e, self._x.clamp(min=_NO_PROBABILITY)))
        log_l = math.log(l)
        margin = (1.0 - math.exp(runner_up)) / l
        return OutputStatistics(max(0.0, log_l - t / l), margin, float(x[token]) - log_l, nonfinite)

    def weights(self, temperature: float) -> torch.Tensor:
        """exp(x / temperature) of the row at hand: what it is sampled by, 1 for the likeliest token."""
        weight = self._weight
        if temperature != 1.0:
            torch.exp(torch.div(self._x, temperature, out=weight), out=weight)
        return weight


def _count_nonfinite(logits: NDArray[np.float32]) -> int:
    """NaN and +Inf. −Inf is how a model's head masks tokens; but if all are masked, none can be drawn."""
    wrong = int(np.count_nonzero(np.isnan(logits) | np.isposinf(logits)))
    return wrong or (logits.size if bool(np.isneginf(logits).all()) else 0)

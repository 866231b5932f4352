"""A request's tokens in, the length of their periodic tail out."""

import numpy as np
from numpy.typing import NDArray

from introspan_wire.signals import REPETITION_LONG_TOKENS, REPETITION_PERIODS

_FIRST_WINDOW = 64


def longest_period_tail(tokens: NDArray[np.integer], max_period: int = REPETITION_PERIODS) -> int:
    """Length of the longest periodic tail, 0 when there is none. tokens: int [n].

    max over periods k ≤ max_period of r_k + k where that is at least three periods or 168 tokens, with r_k the
    trailing count of xᵢ = xᵢ₋ₖ (Holtzman et al. 1904.09751): three of a long period would be seen only after 192 tokens
    and the rest of a stride. Exact over the whole stream: each period is followed back only to where it breaks off, so
    a stream that repeats nothing costs one look at its last tokens.
    """
    n = len(tokens)
    periods = np.arange(1, max_period + 1)
    periods = periods[np.minimum(3 * periods, REPETITION_LONG_TOKENS) <= n]
    # The last comparison of each period at once: nearly all end here.
    periods = periods[tokens[n - 1 - periods] == tokens[n - 1]] if len(periods) else periods
    best = 0
    for k in periods.tolist():
        tail = _trailing_run(tokens, k) + k
        if tail >= min(3 * k, REPETITION_LONG_TOKENS):
            best = max(best, tail)
    return best


def _trailing_run(tokens: NDArray[np.integer], period: int) -> int:
    """Trailing count of xᵢ = xᵢ₋ₖ, looked for in windows that grow fourfold."""
    n = len(tokens) - period
    seen, window = 0, _FIRST_WINDOW
    while seen < n:
        start = max(0, n - seen - window)
        differs = tokens[start : n - seen] != tokens[start + period : n - seen + period]
        breaks = np.flatnonzero(differs)
        if len(breaks):
            return seen + len(differs) - 1 - int(breaks[-1])
        seen += len(differs)
        window *= 4
    return seen

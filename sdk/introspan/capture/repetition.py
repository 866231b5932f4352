"""A request's tokens in, the length of their periodic tail out."""

import numpy as np
from numpy.typing import NDArray

from introspan_wire.signals import REPETITION_PERIODS

_FIRST_WINDOW = 64


def longest_period_tail(tokens: NDArray[np.integer], max_period: int = REPETITION_PERIODS) -> int:
    """Length of the longest periodic tail, 0 when there is none. tokens: int [n].

    max over periods k ≤ max_period of r_k + k where r_k ≥ 2k, with r_k the trailing count of xᵢ = xᵢ₋ₖ
    (Holtzman et al. 1904.09751). Exact over the whole stream: each period is followed back only to where it
    breaks off, so a stream that repeats nothing costs one look at its last tokens.
    """
    n = len(tokens)
    periods = np.arange(1, max_period + 1)
    # r_k ≥ 2k needs the last 2k comparisons, hence 3k tokens.
    periods = periods[3 * periods <= n]
    # The last comparison of each period at once: nearly all end here.
    periods = periods[tokens[n - 1 - periods] == tokens[n - 1]] if len(periods) else periods
    best = 0
    for k in periods.tolist():
        run = _trailing_run(tokens, k)
        if run >= 2 * k:
            best = max(best, run + k)
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

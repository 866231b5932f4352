"""The size of a reference in, upper bounds on the mean of X that hold for nearly every reference of that size out."""

import math

import numpy as np

_HALVINGS = 60


def tail_bound(below: int, size: int, chance: float) -> float:
    """BetaInv(1 − chance; below, size + 1 − below): how much of the population lies beyond the cut.

    The cut is the below-th smallest (or largest) of a reference of `size` independent draws; the bound is wrong
    for a fraction `chance` of all references. With below = 1 it bounds how often something new exceeds all of the
    reference. 1 where nothing can be said: below > size.
    """
    if not 0 < chance < 1:
        raise ValueError(f"chance must be between 0 and 1, got {chance}")
    if below < 1 or size < 1:
        raise ValueError(f"below and size must be >= 1, got {below} and {size}")
    if below > size:
        return 1.0
    # I_m(k, n + 1 − k) = P(Binomial(n, m) ≥ k), so m solves P(Binomial(n, m) < k) = chance. In logs, because
    # chance is divided among thousands of streams.
    i = np.arange(below)
    log_choose = np.cumsum(np.log(np.concatenate([[1.0], (size - i[:-1]) / (i[:-1] + 1)])))
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        m = (low + high) / 2
        log_below = np.logaddexp.reduce(log_choose + i * math.log(m) + (size - i) * math.log1p(-m))
        low, high = (m, high) if log_below > math.log(chance) else (low, m)
    return high


def mean_bound(size: int, chance: float) -> float:
    """½ + √(ln(1/chance) / 6·size): bound on the mean of U = F(x) (or of 1 − U), F that of a reference.

    The mean of F(x) over the population is that of `size` uniform numbers, which are sub-Gaussian with variance
    1/12; ties only narrow them. 1 where nothing can be said.
    """
    if not 0 < chance < 1:
        raise ValueError(f"chance must be between 0 and 1, got {chance}")
    if size < 1:
        raise ValueError(f"size must be >= 1, got {size}")
    return min(1.0, 0.5 + math.sqrt(-math.log(chance) / (6 * size)))

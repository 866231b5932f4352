"""Two sets of requests in, how far apart the distributions of each feature are out."""

import numpy as np
from numpy.typing import NDArray


def cdf_distance(
    first: NDArray[np.float32], second: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Largest distance of the two empirical distributions of each feature, and how likely one as large is by chance.

    first: float32 [n, F], second [m, F] → both float64 [F], NaN for a feature that one of them never measured. The
    chance is 2·exp(−2 D² nm/(n + m)), never too small when n = m ≥ 458. (Kolmogorov–Smirnov; Wei & Dudley 2012)
    """
    values = np.concatenate([first, second])
    order = np.argsort(values, axis=0, kind="stable")  # NaN last
    ordered = np.take_along_axis(values, order, axis=0)
    n, m = (np.count_nonzero(~np.isnan(part), axis=0) for part in (first, second))
    both = (n > 0) & (m > 0)
    step = np.where(order < len(first), 1 / np.maximum(n, 1), -1 / np.maximum(m, 1))
    apart = np.abs(np.cumsum(np.where(np.isnan(ordered), 0.0, step), axis=0))
    # Between equal values neither distribution is defined: only the last of them counts.
    last = np.ones(ordered.shape, np.bool_)
    last[:-1] = ordered[1:] != ordered[:-1]
    distance = np.where(both, np.max(np.where(last, apart, 0.0), axis=0, initial=0.0), np.nan)
    chance = np.minimum(1.0, 2 * np.exp(-2 * distance**2 * (n * m / np.maximum(n + m, 1))))
    return distance, chance

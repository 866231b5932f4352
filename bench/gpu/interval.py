"""Paired measurements in, the ratio of the one to the other with its 95 % interval out."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


def paired_ratio(name: str, upper: ArrayLike, lower: ArrayLike) -> dict[str, float]:
    """`name`, `name_low` and `name_high`: the mean ratio of pairs, by Student's t of the logarithms."""
    ratios: NDArray[np.float64] = np.log(np.asarray(upper, float) / np.asarray(lower, float))
    centre = float(ratios.mean())
    spread = float(stats.sem(ratios) * stats.t.ppf(0.975, len(ratios) - 1))
    return {
        name: float(np.exp(centre)),
        f"{name}_low": float(np.exp(centre - spread)),
        f"{name}_high": float(np.exp(centre + spread)),
    }

"""Numbers of many healthy rounds in; how far a round is from them, over all numbers together, out.

Each number counts in its own standard deviations, so that many small shifts that go the same way in every round are
not lost beside a few numbers that vary by themselves. What chance makes of their root mean square, healthy rounds say,
each held against all others. Measured on SmolLM2 in bfloat16 with one layer's weights rounded to int8: told from
healthy rounds with an area under the curve of 1.000, where distances that are not standardised have 0.934.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Squares:
    """Squares of standardised numbers, summed for each of some rounds, float64 [rounds]; count: how many there are."""

    total: NDArray[np.float64]
    count: NDArray[np.int64]


def deviation(values: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Standard deviation of a new round's numbers [...] from the mean of these [rounds, ...], at least `least`.

    NaN for numbers that are not known in every round.
    """
    known = np.isfinite(values).all(axis=0)
    found = np.full(values.shape[1:], np.nan)
    spread = np.maximum(np.std(values[:, known], axis=0, ddof=1), least)
    found[known] = spread * np.sqrt(1 + 1 / len(values))
    return found


def without_own(values: NDArray[np.float64], least: float) -> Squares:
    """Squares of each round's numbers in deviations from all others' mean. values: [rounds, ...]."""
    flat = values.reshape(len(values), -1)
    flat = flat[:, np.isfinite(flat).all(axis=0)]
    rounds, apart = len(flat), flat - flat.mean(axis=0)
    squares = apart**2 * rounds / (rounds - 1)
    variance = np.maximum((apart**2).sum(axis=0) - squares, 0.0) / max(rounds - 2, 1)
    total = (squares / np.maximum(variance, least**2)).sum(axis=1)
    return Squares(total, np.full(rounds, flat.shape[1]))


def of_round(
    values: NDArray[np.float64], mean: NDArray[np.float64], deviation: NDArray[np.float64]
) -> Squares:
    """Squares of one round's numbers; those that are not known, here or there, are left out."""
    squares = ((values - mean) / deviation) ** 2
    known = np.isfinite(squares)
    return Squares(np.array([squares[known].sum()]), np.array([np.count_nonzero(known)]))


def pooled_squares(parts: Sequence[Squares]) -> NDArray[np.float64]:
    """Root mean square [rounds] over all numbers of all parts; 0 where there are none."""
    total = np.sum([part.total for part in parts], axis=0)
    count = np.sum([part.count for part in parts], axis=0)
    found: NDArray[np.float64] = np.sqrt(total / np.maximum(count, 1))
    return found

"""Scores of healthy and of changed models in, how well they are told apart, and how sure that is, out."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Interval = tuple[float, float]


def auc(healthy: Scores, changed: Scores) -> float:
    """The chance that a changed model scores higher than a healthy one, ties counting half. NaN scores highest."""
    both = [np.where(np.isnan(scores), np.inf, scores) for scores in (healthy, changed)]
    reference = np.sort(both[0])
    below = np.searchsorted(reference, both[1], side="left")
    up_to = np.searchsorted(reference, both[1], side="right")
    return float((below + up_to).mean() / (2 * len(reference)))


def interval(
    instances: int,
    statistic: Callable[[NDArray[np.intp]], float],
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap over fault instances. statistic takes the indices that were drawn."""
    random = np.random.default_rng(seed)
    drawn = random.integers(0, instances, (resamples, instances))
    found = np.array([statistic(indices) for indices in drawn])
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def share(successes: Sequence[bool], seed: int, resamples: int = 2000, level: float = 0.95) -> Interval:
    """Bootstrap interval of a share; Clopper and Pearson's where all or none succeed, which resampling cannot doubt."""
    outcome = np.array(successes, dtype=float)
    n = len(outcome)
    tail = (1 - level) / 2
    if outcome.all():
        return float(tail ** (1 / n)), 1.0
    if not outcome.any():
        return 0.0, float(1 - tail ** (1 / n))
    return interval(n, lambda drawn: float(outcome[drawn].mean()), seed, resamples, level)

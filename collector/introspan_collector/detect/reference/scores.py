"""Features in, how unusual the most unusual one of each request is out."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_MAD_TO_SIGMA = 1.4826
_TAIL = 0.99
_TAIL_TO_SIGMA = 2.5758
_MOST = 1e30  # what float32 can hold

_BEGINS = 0.95
_FEWEST_BEYOND = 8
_HEAVIEST = 0.9  # shape: of a heavier tail not even the mean exists
_LIGHTEST = 1e-3  # shape: below it the tail is exponential
TAIL_NUMBERS = 4
"""Numbers that describe a tail: where it begins, −ln of how many lie beyond, its scale and its shape."""


class Scale(NamedTuple):
    """How features vary while all is well: float32 [n, F] middle and robust standard deviation of a request's cell.

    tails: float32 [2, F, TAIL_NUMBERS], of z below and above the middle.
    """

    centre: NDArray[np.float32]
    spread: NDArray[np.float32]
    tails: NDArray[np.float32]


def fit_spread(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Median and robust standard deviation of each feature, float32 [F]; NaN where it does not vary.

    The larger of two estimates, from the median and from the 99th percentile of |x − median|: with the first alone
    a feature that is constant in most requests would be the largest in nearly all.
    """
    centre = np.full(features.shape[1], np.nan, np.float32)
    spread = centre.copy()
    measured = np.where(np.isfinite(features), features, np.float32(np.nan))
    some = ~np.isnan(measured).all(axis=0)
    if not some.any():
        return centre, spread
    centre[some] = np.nanmedian(measured[:, some], axis=0)
    away = np.abs(measured[:, some] - centre[some])
    found = np.maximum(
        np.nanmedian(away, axis=0) * _MAD_TO_SIGMA, np.nanquantile(away, _TAIL, axis=0) / _TAIL_TO_SIGMA
    )
    spread[some] = np.where(found > 0, found, np.nan)
    return centre, spread


def fit_tails(
    features: NDArray[np.float32], centre: NDArray[np.float32], spread: NDArray[np.float32]
) -> NDArray[np.float32]:
    """How rare z of each feature is on either side, float32 [2, F, TAIL_NUMBERS]; centre and spread as in Scale.

    A generalised Pareto law by probability-weighted moments (Hosking & Wallis 1987) beyond the 95th percentile. All
    cells together: a cell alone has too few rows. Features differ in how heavy their tails are, and without it the
    heaviest would be the largest of nearly every request, so that no request is odd.
    """
    z = _standardised(features, centre, spread)
    sides = [[_tail(side[~np.isnan(side)]) for side in (sign * z).T] for sign in (-1.0, 1.0)]
    return np.array(sides, np.float32).reshape(2, z.shape[1], TAIL_NUMBERS)


def largest(features: NDArray[np.float32], scale: Scale) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Score of each request, float32 [n], and the feature that has it; NaN and 0 where nothing was measured.

    The rarest feature's √(−2 ln p), p how many healthy values lie as far out on its side: about as many standard
    deviations as a normal value so rare is away.
    """
    if not features.shape[1]:
        return np.full(len(features), np.nan, np.float32), np.zeros(len(features), np.intp)
    z = _standardised(features, scale.centre, scale.spread)
    rarity = np.where(z < 0, _rarity(-z, scale.tails[0]), _rarity(z, scale.tails[1]))
    rarity = np.where(np.isnan(z), -1.0, rarity)
    place = np.argmax(rarity, axis=1)
    found = np.take_along_axis(rarity, place[:, None], axis=1)[:, 0]
    score = np.sqrt(2 * np.maximum(found, 0.0)).astype(np.float32)
    return np.where(found >= 0, score, np.float32(np.nan)), place


def _standardised(
    features: NDArray[np.float32], centre: NDArray[np.float32], spread: NDArray[np.float32]
) -> NDArray[np.float64]:
    # Values that are not finite are counted elsewhere; here one healthy one would hide all others.
    finite = np.where(np.isfinite(features), features, np.float32(np.nan)).astype(np.float64)
    return np.asarray(np.clip((finite - centre) / spread, -_MOST, _MOST))


def _rarity(z: NDArray[np.float64], tails: NDArray[np.float32]) -> NDArray[np.float64]:
    """−ln of how many healthy values lie at z or beyond; before the tail begins it rises evenly from 0."""
    begins, below, scale, shape = tails.T.astype(np.float64)
    beyond = np.maximum(z - begins, 0.0) / scale
    light = np.maximum(shape, _LIGHTEST)
    tail = np.where(shape > _LIGHTEST, np.log1p(light * beyond) / light, beyond)
    return np.asarray(below * np.clip(z / begins, 0.0, 1.0) + tail)


def _tail(z: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """The tail of one side of one feature. z: its values, those of the other side negative."""
    begins = max(float(np.quantile(z, _BEGINS)), 1.0) if len(z) else 1.0
    beyond = np.sort(z[z > begins]) - begins
    count = len(beyond)
    below = float(np.log((len(z) + 1) / (count + 1)))
    if count < _FEWEST_BEYOND:
        return begins, below, 1.0, 0.0
    mean = float(beyond.mean())
    weighted = float(np.mean(beyond * (count - np.arange(count) - 0.65) / count))
    ratio = mean - 2 * weighted
    shape = 2 - mean / ratio if ratio > 0 else _HEAVIEST
    shape = min(max(shape, 0.0), _HEAVIEST)
    return begins, below, max(mean * (1 - shape), 1e-9), shape

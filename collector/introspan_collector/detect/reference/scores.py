"""Features in, how unusual the most unusual one of each request is out."""

import numpy as np
from numpy.typing import NDArray

_MAD_TO_SIGMA = 1.4826
_TAIL = 0.99
_TAIL_TO_SIGMA = 2.5758
_MOST = 1e30  # what float32 can hold


def fit_spread(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Median and robust standard deviation of each feature, float32 [F]; NaN where it does not vary.

    The larger of two estimates, from the median and from the 99th percentile of |x − median|: with the first alone
    a feature with heavy tails, or one that is constant in most requests, would be the largest in nearly all.
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


def largest(
    features: NDArray[np.float32], centre: NDArray[np.float32], spread: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Largest |z| of each request, float32 [n], and the feature that has it; NaN and 0 where nothing was measured.

    features, centre and spread: float32 [n, F], the last two those of the request's cell.
    """
    if not features.shape[1]:
        return np.full(len(features), np.nan, np.float32), np.zeros(len(features), np.intp)
    # Values that are not finite are counted elsewhere; here one healthy one would hide all others.
    finite = np.where(np.isfinite(features), features, np.float32(np.nan)).astype(np.float64)
    z = np.minimum(np.abs(finite - centre) / spread, _MOST).astype(np.float32)
    z = np.where(np.isnan(z), np.float32(-1), z)
    place = np.argmax(z, axis=1)
    found = np.take_along_axis(z, place[:, None], axis=1)[:, 0]
    return np.where(found >= 0, found, np.float32(np.nan)), place

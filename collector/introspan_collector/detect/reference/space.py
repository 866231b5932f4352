"""Projections of the residual stream in, coordinates in which healthy traffic is round out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MAD_TO_SIGMA = 1.4826
_CLIP = 6.0
_SMALLEST_EIGENVALUE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """Robust location and scale of each component, float64 [P], and the whitening of the scaled ones [P, P]."""

    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    whitening: NDArray[np.float64]

    def whiten(self, projection: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Coordinates of n requests, float64 [n, P]: scaled, clipped at ±6 and decorrelated. NaN stays NaN."""
        return np.asarray(self.scaled(projection) @ self.whitening)

    def scaled(self, projection: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Components of n requests in robust standard deviations from the middle, float64 [n, P], clipped at ±6."""
        return np.asarray(np.clip((projection - self.centre) / self.scale, -_CLIP, _CLIP))


def fit_space(projection: NDArray[np.float32] | NDArray[np.float64]) -> Space:
    """The space of healthy projections [n, P]; rows that are not finite are left out. Any n and any rank will do.

    The correlation is shrunk towards a multiple of the identity (OAS, Chen et al. 0907.4698), and its eigenvalues
    are at least 0.001, so a constant component does not become infinitely important.
    """
    width = projection.shape[1]
    rows = projection[np.isfinite(projection).all(axis=1)].astype(np.float64)
    if not len(rows) or not width:
        return Space(np.zeros(width), np.ones(width), np.eye(width))
    centre = np.median(rows, axis=0)
    scale = _MAD_TO_SIGMA * np.median(np.abs(rows - centre), axis=0)
    scale = np.where(scale > 0, scale, rows.std(axis=0))
    scale = np.where(scale > 0, scale, 1.0)
    scaled = Space(centre, scale, np.eye(width)).scaled(rows)
    values, vectors = np.linalg.eigh(_shrunk(scaled - scaled.mean(axis=0)))
    whitening = (vectors / np.sqrt(np.maximum(values, _SMALLEST_EIGENVALUE))) @ vectors.T
    return Space(centre, scale, whitening)


def _shrunk(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation of the rows after oracle-approximating shrinkage."""
    count, width = centred.shape
    spread = np.sqrt(np.mean(centred**2, axis=0))
    unit = centred / np.where(spread > 0, spread, 1.0)
    correlation = unit.T @ unit / count
    trace = float(np.trace(correlation))
    squares = float(np.sum(correlation**2))
    above = (1 - 2 / width) * squares + trace**2
    below = (count + 1 - 2 / width) * (squares - trace**2 / width)
    weight = 1.0 if below <= 0 else min(1.0, max(0.0, above / below))
    return np.asarray((1 - weight) * correlation + weight * trace / width * np.eye(width))

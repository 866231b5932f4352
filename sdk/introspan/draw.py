"""A request's hash and a position in, a uniform number out, the same in every process."""

import numpy as np
from numpy.typing import NDArray

_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_INCREMENT = np.uint64(0x9E3779B97F4A7C15)


def draw(seed: NDArray[np.uint64], position: NDArray[np.int64]) -> NDArray[np.float64]:
    """A uniform number in (0, 1) for each (request hash, position).

    (SplitMix64, Steele et al. 2014)
    """
    state = seed + (position.astype(np.uint64) + np.uint64(1)) * _INCREMENT
    state = (state ^ (state >> np.uint64(30))) * _MULTIPLIERS[0]
    state = (state ^ (state >> np.uint64(27))) * _MULTIPLIERS[1]
    state ^= state >> np.uint64(31)
    uniform: NDArray[np.float64] = ((state >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    return uniform

"""What requests ask of the sampler in; the same as numbers of each measured row, for a device, out."""

import math

import numpy as np
from numpy.typing import NDArray

from introspan.capture.health import Health
from introspan.capture.output.sampler import Sampling

_NOTHING = (math.nan, 0.0, 1.0, 0.0)


class Asked:
    """Temperature, top-k, top-p and min-p by slot. capacity: slots."""

    def __init__(self, capacity: int, health: Health) -> None:
        self._health = health
        self._numbers = np.tile(np.array(_NOTHING)[:, None], capacity)
        self._is_skipped = np.zeros(capacity, np.bool_)

    def begin(self, slot: int, sampling: Sampling) -> None:
        """Remembers the parameters of a request."""
        self._is_skipped[slot] = not sampling.reproducible
        self._numbers[:, slot] = _NOTHING
        if not sampling.reproducible:
            return
        try:
            self._numbers[:, slot] = sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p
        except Exception as error:  # noqa: BLE001 - one request's parameters must not cost others theirs
            self._numbers[:, slot] = _NOTHING
            self._health.error("sampler", error)

    def of(self, slots: NDArray[np.int64], uniform: NDArray[np.float64]) -> NDArray[np.float64]:
        """What `kernels/sampler.py` is given of rows: float64 [5, rows]."""
        asked = np.empty((5, len(slots)))
        asked[:4], asked[4] = self._numbers[:, slots], uniform
        return asked

    def skipped(self, slots: NDArray[np.int64]) -> int:
        """How many of the rows' requests have processors that are not reproduced."""
        return int(np.count_nonzero(self._is_skipped[slots]))

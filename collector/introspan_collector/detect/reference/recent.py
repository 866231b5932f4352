"""What was said of recent requests in, what is known of a request out: memory of a fixed size."""

import numpy as np
from numpy.typing import NDArray


class RecentRequests:
    """A row of values for each of the last requests, by seed. A newer request takes the place of an older one."""

    def __init__(self, size: int, width: int) -> None:
        # 0 is no seed: pages that nobody wrote to take no memory.
        self._seed = np.zeros(size, np.uint64)
        self._values = np.zeros((size, width), np.float32)

    @property
    def width(self) -> int:
        """Values of each request."""
        return int(self._values.shape[1])

    def put(self, seed: NDArray[np.uint64], values: NDArray[np.float32]) -> None:
        """Remembers values, float32 [n, width], of n requests."""
        place = self._place(seed)
        self._seed[place] = seed
        self._values[place] = values

    def get(self, seed: NDArray[np.uint64]) -> NDArray[np.float32]:
        """Values of n requests, float32 [n, width]; NaN for one that is not remembered."""
        place = self._place(seed)
        known = (self._seed[place] == seed) & (seed != 0)
        return np.where(known[:, None], self._values[place], np.float32(np.nan))

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The whole state, for a checkpoint."""
        used = self._seed != 0
        return {"recent_seed": self._seed[used], "recent_values": self._values[used]}

    def restore(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Replaces the state by that of `arrays`."""
        values = arrays["recent_values"].astype(np.float32)
        self._seed = np.zeros(len(self._seed), np.uint64)
        self._values = np.zeros((len(self._seed), values.shape[1]), np.float32)
        self.put(arrays["recent_seed"].astype(np.uint64), values)

    def _place(self, seed: NDArray[np.uint64]) -> NDArray[np.intp]:
        return (seed % np.uint64(len(self._seed))).astype(np.intp)

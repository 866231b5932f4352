"""Measured rows in; of each the number by which its token's share of U is drawn out."""

import numpy as np
from numpy.typing import NDArray

from introspan.capture.rows import Selection
from introspan.context import request_hash
from introspan.draw import draw


def uniform_of(selection: Selection, rows: list[int]) -> NDArray[np.float64]:
    """V of some of the rows, uniform on (0, 1), the same in every process."""
    # By the engine's id, which is another for each request: clients may give many the same one.
    seeds = np.array([request_hash(selection.requests[row].key) for row in rows], np.uint64)
    return draw(seeds, selection.position[rows])

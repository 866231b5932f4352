"""What a probe has begun to compute on a device in; numbers in the rows they are of, once they are on the host, out."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Of the rows that are computed together, what one probe makes of them.

    probe: whose errors those of `take` are. numbers: float32 on the device, of any shape. take: called with them on the
    host, shaped alike, and with the values [rows, columns] to write to; never called where they were lost on the way.
    """

    probe: str
    numbers: Tensor
    take: Callable[[NDArray[np.float32], NDArray[np.float32]], None]

"""What every detector gives: for each of some requests and streams an X in [0, 1] whose healthy mean has a bound."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SHARES = {
    "sampler": 0.15,
    "canary": 0.25,
    "bank": 0.17,
    "extremes": 0.25,
    "drift": 0.05,
    "classes": 0.05,
    "replicas": 0.05,
    "repetition": 0.03,
    "reprefill": 0.05,
}
"""Share of a model's budget of false alarms that each detector has; inside it, its streams share alike.

Shares are scaled to 1 over the detectors that there are: that of requests sent again, which few have, makes room so.
"""

OUTSIDE = "class.none"
"""The signal of requests that lie outside all classes of a reference."""

BEYOND_ALL = "beyond all"
"""The side of requests more unusual than every healthy one that the reference scored."""


class Stream(NamedTuple):
    """What one stream of evidence is about.

    replica is "" where all replicas of the model count together; kind "prompt", "decoded" or "" where it does not
    apply; side says which deviation of the signal makes X large: "high", "low", "spread", "centre" and the like.
    """

    model: str
    replica: str
    adapter: str
    detector: str
    kind: str
    signal: str
    layer: int
    side: str


@dataclass(frozen=True, slots=True, eq=False)
class Growth:
    """Growth of ln M of S streams by evidence whose law is known exactly, float64 [S, cautions].

    bound: m of one piece on each stream, float64 [S].
    """

    streams: tuple[Stream, ...]
    bound: NDArray[np.float64]
    log: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """X of n requests for S streams.

    x: float64 [n, S] in [0, 1], NaN where a request says nothing about a stream; bound: m, float64 [S], an upper
    bound on E[X | past] while all is well; cluster: uint64 [n], requests that must count as one.
    """

    streams: tuple[Stream, ...]
    bound: NDArray[np.float64]
    x: NDArray[np.float64]
    cluster: NDArray[np.uint64]

"""Growth of evidence by single pieces whose law is known exactly in, the same gathered by stream out.

Where the law of a piece is known whatever came before it, each is a step of its own: M grows by a factor whose
expectation is 1. That is much faster than one step with a tick's mean, and needs no clusters.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect import checkpoint
from introspan_collector.detect.sequential.e_detector import CAUTIONS
from introspan_collector.detect.sequential.evidence import Stream

_WHAT = "bets"
_VERSION = 1


class Bets:
    """Gathers growth by stream until it is taken. Sums of logarithms: their order does not matter."""

    def __init__(self) -> None:
        self._streams: tuple[Stream, ...] = ()
        self._growth = np.full((0, len(CAUTIONS)), np.nan)

    def follow(self, streams: Sequence[Stream]) -> None:
        """From now on these streams, each once; what was gathered for others is dropped."""
        rows = {stream: row for row, stream in enumerate(self._streams)}
        old = np.array([rows.get(stream, -1) for stream in streams], np.intp)
        growth = np.full((len(streams), len(CAUTIONS)), np.nan)
        growth[old >= 0] = self._growth[old[old >= 0]]
        self._streams, self._growth = tuple(streams), growth

    def add(self, rows: NDArray[np.intp], growth: NDArray[np.float64]) -> None:
        """Takes growth of ln M: rows [k] of streams, each once; growth float64 [k, cautions]."""
        self._growth[rows] = np.nan_to_num(self._growth[rows]) + growth

    def take(self) -> NDArray[np.float64]:
        """Growth of ln M since it was last taken, float64 [S, cautions], NaN for streams without evidence."""
        taken, self._growth = self._growth, np.full_like(self._growth, np.nan)
        return taken

    def snapshot(self) -> bytes:
        """The whole state."""
        return checkpoint.dump(_WHAT, _VERSION, {"streams": self._streams}, {"growth": self._growth})

    def restore(self, data: bytes) -> None:
        """Puts a snapshot's state in place of this one. Raises ValueError for one that it cannot read."""
        header, arrays = checkpoint.load(_WHAT, _VERSION, data)
        self._streams = tuple(Stream(*fields) for fields in header["streams"])
        self._growth = arrays["growth"]

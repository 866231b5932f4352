"""How far the last ticks were from a reference in, the same over the last day out: for people."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect import checkpoint
from introspan_collector.detect.live.window import WINDOW_TICKS, Distance
from introspan_wire.signals import Kind

MOST_POINTS = 1440
"""Of each kind: with ticks of ten seconds those of a day."""

_WHAT = "a course"
_VERSION = 1
_Points = dict[Kind, NDArray[np.float64]]
"""By kind of row [n, 3]: columns are those of Point."""


class Point(NamedTuple):
    """How far the requests of one window were, and how far chance alone would have them."""

    unix_seconds: float
    distance: float
    threshold: float


class Course:
    """A point for each window of ticks, so that no request is in two of them; it outlives the reference."""

    def __init__(self) -> None:
        self._ticks = 0
        self._points: _Points = {}

    def tick(self, now_unix_seconds: float, distances: Mapping[Kind, Distance]) -> None:
        """Takes what is true at the end of a tick; every WINDOW_TICKS-th time it is kept, if anything was measured."""
        self._ticks += 1
        if self._ticks % WINDOW_TICKS:
            return
        for kind, (distance, threshold) in distances.items():
            if np.isfinite(distance) and np.isfinite(threshold):
                known = self._points.get(kind, np.zeros((0, 3)))
                point = np.array([[now_unix_seconds, distance, threshold]])
                self._points[kind] = np.concatenate([known, point])[-MOST_POINTS:]

    def of(self) -> Iterator[tuple[Kind, list[Point]]]:
        """The points of each kind, the oldest first."""
        for kind, points in sorted(self._points.items()):
            yield kind, [Point(*point) for point in points.tolist()]

    def snapshot(self) -> bytes:
        """The whole state."""
        points = {kind.value: of for kind, of in self._points.items()}
        return checkpoint.dump(_WHAT, _VERSION, {"ticks": self._ticks}, points)

    def restore(self, data: bytes) -> None:
        """Puts a snapshot's state in place of this one. Raises ValueError for one that it cannot read."""
        header, arrays = checkpoint.load(_WHAT, _VERSION, data)
        self._ticks = header["ticks"]
        self._points = {Kind(name): points for name, points in arrays.items()}

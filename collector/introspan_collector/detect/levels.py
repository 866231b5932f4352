"""The copies of the sequential test in, how much evidence each detector has out."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.incident.finding import Copy
from introspan_collector.detect.sequential.e_detector import EDetector
from introspan_collector.detect.sequential.evidence import Stream

ALL = "all"
"""Stands for all detectors of a model and adapter together: what the threshold is for."""

_LN10 = math.log(10.0)


class Levels:
    """Remembers which streams belong together: there may be many thousands, and they seldom change."""

    def __init__(self) -> None:
        self._groups: _Groups | None = None

    # Any: JSON.
    def of(self, ticket: EDetector, page: EDetector) -> list[dict[str, Any]]:
        """log₁₀ of evidence over threshold by detector, and of all of a model together; None before there is any."""
        found = []
        for copy, test in ((Copy.TICKET, ticket), (Copy.PAGE, page)):
            if self._groups is None or self._groups.streams is not test.streams:
                self._groups = _grouped(test.streams)
            for name, level in zip(self._groups.names, self._groups.sums(test.evidence()), strict=True):
                known = level if math.isfinite(level) else None
                found.append({**name._asdict(), "copy": copy.value, "log10": known})
        return found


class _Name(NamedTuple):
    model: str
    adapter: str
    detector: str


@dataclass(frozen=True, slots=True, eq=False)
class _Groups:
    """Streams by detector, and by model and adapter; rows: intp [2, S], for each stream its places in names."""

    streams: tuple[Stream, ...]
    names: tuple[_Name, ...]
    rows: NDArray[np.intp]

    def sums(self, log10: NDArray[np.float64]) -> list[float]:
        """log₁₀ of the sum over the streams of each group."""
        summed = np.full(len(self.names), -np.inf)
        for rows in self.rows:
            np.logaddexp.at(summed, rows, log10 * _LN10)
        log10s: list[float] = (summed / _LN10).tolist()
        return log10s


def _grouped(streams: tuple[Stream, ...]) -> _Groups:
    places: dict[_Name, int] = {}
    rows = [
        [
            places.setdefault(_Name(one.model, one.adapter, detector or one.detector), len(places))
            for one in streams
        ]
        for detector in ("", ALL)
    ]
    return _Groups(streams, tuple(places), np.array(rows, np.intp))

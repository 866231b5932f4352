"""Measured rows and the ends of requests in; what the stages after capture take out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from introspan.capture.columns import Layout
from introspan.capture.health import Health
from introspan.capture.rows import Selection
from introspan.capture.step.onset import Onsets
from introspan.capture.step.sinks import Sinks
from introspan.capture.stream.reprefill import ReprefillProbe
from introspan.observation import Observation, Request, Rows


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Rows with their values [rows, columns], and what was measured of the canaries among them, by row.

    is_whole: whether no residual stream was lost on the way.
    """

    selection: Selection
    values: NDArray[np.float32]
    canaries: dict[int, Observation]
    is_whole: bool

    def pick(self, rows: NDArray[np.int64]) -> "Measured":
        """Some of the rows, in order."""
        places = {row: place for place, row in enumerate(rows.tolist())}
        canaries = {places[row]: found for row, found in self.canaries.items() if row in places}
        return Measured(self.selection.pick(rows), self.values[rows], canaries, self.is_whole)


class Handover:
    """Gives rows away in the order of their steps. apart: keys of followed requests that are no traffic."""

    def __init__(
        self,
        layout: Layout,
        onsets: Onsets,
        reprefill: ReprefillProbe | None,
        apart: set[str],
        health: Health,
        sinks: Sinks,
    ) -> None:
        self._drawn = layout.blocks["sampler.pit"]
        self._onsets = onsets
        self._reprefill = reprefill
        self._apart = apart
        self._health = health
        self._sinks = sinks

    def give(self, measured: Measured) -> None:
        """Hands on rows of traffic, and what comes of canaries and of requests sent again."""
        selection, values = measured.selection, measured.values
        closes = self._onsets.of(selection, values)
        self._compare(measured)
        rows = Rows(selection.requests, selection.position, values, closes)
        if self._apart and not all(request.is_traffic for request in selection.requests):
            rows = _of_traffic(rows)
        if measured.canaries:
            self._sinks.canaries(list(measured.canaries.values()))
        # Here, where rows are in the order of their steps: segments reach the collector in the order in which they
        # end, and which of them end sooner is a matter of what was drawn.
        self._health.drawn = self._health.drawn.plus(rows.values[:, self._drawn].ravel())
        if len(rows.requests):
            self._sinks.rows(rows)

    def end(self, request: Request, last_position: int) -> None:
        """Ends a request at the last position it reached."""
        if request.is_traffic:
            self._sinks.finished(request, last_position)

    def _compare(self, measured: Measured) -> None:
        reprefill, health = self._reprefill, self._health
        if reprefill is None or not measured.is_whole:
            return
        if not health.is_on("residual") or not health.is_on("consistency"):
            return
        try:
            self._sinks.canaries(reprefill.measure(measured.selection, measured.values))
        except Exception as error:  # noqa: BLE001 - the edge of a probe
            health.error("consistency", error)


def _of_traffic(rows: Rows) -> Rows:
    kept = [row for row, request in enumerate(rows.requests) if request.is_traffic]
    requests = [rows.requests[row] for row in kept]
    return Rows(requests, rows.position[kept], rows.values[kept], rows.closes[kept])

"""Which points of a model are tapped, and rows of values of canaries, in; one observation for each row out."""

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from introspan.capture.model.anatomy import Form
from introspan.capture.rows import Selection
from introspan.capture.taps.streams import Taps
from introspan.observation import Observation, Request
from introspan_wire.codec import Column, Schema
from introspan_wire.signals import PROJECTION_COMPONENTS, Kind, Statistic


class CanaryObservations:
    """Makes observations of values [rows, columns]: projections, log_rms and nonfinite of each layer, in this order.

    own: the taps they are of. What a pipeline stage hands on is tapped by the next one, too, which measures it.
    """

    def __init__(self, taps: Taps, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self.own = [tap for tap, point in enumerate(taps.points) if point.form is not Form.HANDED_ON]
        layers = [taps.points[tap].layer for tap in self.own]
        self._schema = Schema(
            Kind.CANARY,
            (
                *(
                    Column("residual.projection", Statistic.LAST, layer, component=component)
                    for layer in layers
                    for component in range(PROJECTION_COMPONENTS)
                ),
                *(Column("residual.log_rms", Statistic.LAST, layer) for layer in layers),
                *(Column("residual.nonfinite", Statistic.LAST, layer) for layer in layers),
            ),
        )

    def put(self, selection: Selection, values: NDArray[np.float32], found: dict[int, Observation]) -> None:
        """Puts the observations of the canaries among the rows into found, by row; values: of those rows alone."""
        for row, of_row in zip(canaries_of(selection), values, strict=True):
            found[row] = self._observation(selection.requests[row], int(selection.position[row]), of_row)

    def _observation(self, request: Request, position: int, values: NDArray[np.float32]) -> Observation:
        return Observation(
            schema=self._schema,
            request_id=request.request_id,
            trace_id=request.trace_id,
            span_id=request.span_id,
            cluster_key=request.cluster_key,
            adapter=request.adapter,
            segment_index=position - request.prompt_tokens + 1,
            token_start=position,
            token_count=1,
            measured_count=1,
            prompt_tokens=request.prompt_tokens,
            cached_tokens=request.cached_tokens,
            time_unix_nano=self._clock(),
            sampling_probability=1.0,
            values=values,
        )


def canaries_of(selection: Selection) -> list[int]:
    """The rows of canaries."""
    return [row for row, request in enumerate(selection.requests) if request.is_canary]

"""Rows of canaries with the residual stream at every layer in; one observation for each row out."""

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from introspan.capture.model.anatomy import Form
from introspan.capture.rows import Selection
from introspan.capture.stream.projection import orthogonal_map, project
from introspan.capture.stream.residual import direction
from introspan.capture.taps.streams import Taps
from introspan.observation import Observation, Request
from introspan_wire.codec import Column, Schema
from introspan_wire.signals import PROJECTION_COMPONENTS, Kind, Statistic


class CanaryProbe:
    """Measures where the residual stream is, how large it is and whether it is finite, at every tapped point.

    What a pipeline stage hands on is tapped by the next one, too, which measures it.
    """

    def __init__(self, taps: Taps, hidden_size: int, clock: Callable[[], int] = time.time_ns) -> None:
        self._taps = taps
        self._map = torch.from_numpy(orthogonal_map(hidden_size))
        self._clock = clock
        own = [tap for tap, point in enumerate(taps.points) if point.form is not Form.HANDED_ON]
        self._own = torch.tensor(own)
        layers = [taps.points[tap].layer for tap in own]
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

    def measure(self, selection: Selection, found: dict[int, Observation]) -> None:
        """Puts observations of the canaries among the rows in the taps' buffers into found, by row."""
        rows = [row for row, request in enumerate(selection.requests) if request.is_canary]
        streams = self._taps.rows(len(selection), everywhere=True)[rows].cpu()[:, self._own]
        directions = direction(streams)
        log_rms = directions.norm.log() + directions.peak.log() - 0.5 * math.log(streams.shape[2])
        values = torch.cat(
            [project(directions.unit, self._map).flatten(1), log_rms, directions.nonfinite], dim=1
        )
        measured: NDArray[np.float32] = values.numpy()
        for row, of_row in zip(rows, measured, strict=True):
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

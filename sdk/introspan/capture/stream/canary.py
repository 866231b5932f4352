"""Rows of canaries with the residual stream at every layer in; one observation for each row out."""

import math
import time
from collections.abc import Callable

import torch

from introspan.capture.rows import Selection
from introspan.capture.stream.canary_observation import CanaryObservations, canaries_of
from introspan.capture.stream.projection import orthogonal_map, project
from introspan.capture.stream.residual import direction
from introspan.capture.taps.streams import Taps
from introspan.observation import Observation


class CanaryProbe:
    """Measures where the residual stream is, how large it is and whether it is finite, at every tapped point."""

    def __init__(self, taps: Taps, hidden_size: int, clock: Callable[[], int] = time.time_ns) -> None:
        self._taps = taps
        self._map = torch.from_numpy(orthogonal_map(hidden_size))
        self._observations = CanaryObservations(taps, clock)
        self._own = torch.tensor(self._observations.own)

    def measure(self, selection: Selection, found: dict[int, Observation]) -> None:
        """Puts observations of the canaries among the rows in the taps' buffers into found, by row."""
        rows = canaries_of(selection)
        streams = self._taps.rows(len(selection), everywhere=True)[rows].cpu()[:, self._own]
        directions = direction(streams)
        log_rms = directions.norm.log() + directions.peak.log() - 0.5 * math.log(streams.shape[2])
        values = torch.cat(
            [project(directions.unit, self._map).flatten(1), log_rms, directions.nonfinite], dim=1
        )
        self._observations.put(selection, values.numpy(), found)

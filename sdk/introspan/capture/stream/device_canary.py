"""Rows of canaries on a device in; what is computed of them there, to become observations on the host, out."""

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from introspan.capture.crossing import cross
from introspan.capture.kernels.projection import project
from introspan.capture.kernels.stream import Earlier, begin_statistics, statistics_of
from introspan.capture.part import Part
from introspan.capture.rows import Selection
from introspan.capture.stream.canary_observation import CanaryObservations, canaries_of
from introspan.capture.stream.projection import orthogonal_map
from introspan.capture.taps.streams import Taps
from introspan.observation import Observation


class DeviceCanaryProbe:
    """Measures what `CanaryProbe` does, on the device of the taps' buffers, and waits for it nowhere."""

    def __init__(self, taps: Taps, hidden_size: int, clock: Callable[[], int] = time.time_ns) -> None:
        self._taps = taps
        tapped = taps.tapped(0, 0)
        self._device = tapped.device
        self._map = torch.from_numpy(orthogonal_map(hidden_size)).to(self._device)
        self._observations = CanaryObservations(taps, clock)
        self._own = torch.tensor(self._observations.own, dtype=torch.int64).to(self._device)
        self._nothing = tapped.new_zeros(0, len(self._observations.own), hidden_size)

    def launch(self, selection: Selection, found: dict[int, Observation]) -> list[Part]:
        """Begins to measure the canaries among the rows in the taps' buffers; taken, they are put into found by row."""
        rows = canaries_of(selection)
        # A row that follows on none, in memory that begins where a kernel wants it: see DeviceStreamProbe.
        index = np.full((2, len(rows) + len(rows) % 2), -1, np.int64)
        index[0, : len(rows)] = rows
        there = cross(torch.from_numpy(index), self._device)
        streams = self._taps.kept(len(selection), everywhere=True).index_select(0, there[0, : len(rows)])
        statistics = statistics_of(
            begin_statistics(streams, self._own, self._own, Earlier(there[1], there[1], self._nothing))
        ).layers
        projected = project(streams, self._own, self._map).flatten(1)
        numbers = torch.cat([projected, statistics.log_rms, statistics.nonfinite], dim=1)

        def take(numbers: NDArray[np.float32], values: NDArray[np.float32]) -> None:  # noqa: ARG001 - one form
            # A copy: what numbers are part of has more than is kept of it.
            self._observations.put(selection, numbers.copy(), found)

        return [Part("canary", numbers, take)]

"""Tapped residual streams of a step in; their statistics over layers and tokens out."""

import numpy as np
import torch
from numpy.typing import NDArray

from introspan.capture.columns import Layout
from introspan.capture.projection import orthogonal_map, project
from introspan.capture.residual import direction, layer_statistics, step_statistics
from introspan.capture.rows import Selection
from introspan.capture.taps import Taps

_NAN = float("nan")


class StreamProbe:
    """Measures the residual stream at the layout's layers.

    Keeps the last two unit vectors of each request, for velocity and curvature.
    """

    def __init__(self, layout: Layout, taps: Taps, capacity: int, hidden_size: int) -> None:
        place = {point.layer: tap for tap, point in enumerate(taps.points)}
        self.taps = taps
        self._layout = layout
        self._at = torch.tensor([place[layer] for layer in layout.residual_layers])
        self._after = torch.tensor([place[layer + 1] for layer in layout.residual_layers])
        self._projected = torch.tensor(
            [place[layer] for layer in layout.projection_layers], dtype=torch.int64
        )
        self._map = torch.from_numpy(orthogonal_map(hidden_size)) if layout.projection_layers else None
        shape = (capacity, len(layout.residual_layers), hidden_size)
        self._last = torch.zeros(shape)
        self._before_last = torch.zeros(shape)
        self._last_position = np.full(capacity, -2, np.int64)
        self._run = np.zeros(capacity, np.int64)

    def forget(self, slot: int) -> None:
        """Drops what is kept of a request whose slot is free again."""
        self._last_position[slot] = -2

    def measure(self, selection: Selection, values: NDArray[np.float32]) -> None:
        """Writes the residual signals of the step's rows into values [rows, columns]."""
        blocks = self._layout.blocks
        streams = self.taps.rows(len(selection))
        h = streams.index_select(1, self._at)
        statistics = layer_statistics(h, streams.index_select(1, self._after))
        for name in ("log_rms", "log_peak", "turn", "update_ratio", "nonfinite"):
            values[:, blocks[f"residual.{name}"]] = getattr(statistics, name).numpy()
        self._measure_steps(selection, statistics.unit, values)
        if self._map is not None:
            unit = direction(streams.index_select(1, self._projected)).unit
            values[:, blocks["residual.projection"]] = project(unit, self._map).flatten(1).numpy()

    def _measure_steps(self, selection: Selection, unit: torch.Tensor, values: NDArray[np.float32]) -> None:
        decoded = np.flatnonzero(selection.burst >= 0)
        if not decoded.size:
            return
        slot = selection.slot[decoded]
        follows = (selection.burst[decoded] > 0) & (
            selection.position[decoded] == self._last_position[slot] + 1
        )
        run = np.where(follows, self._run[slot] + 1, 0)
        self._run[slot] = run
        self._last_position[slot] = selection.position[decoded]
        at = torch.from_numpy(slot)
        current = unit[torch.from_numpy(decoded)]
        last = self._last[at]
        moving = np.flatnonzero(run >= 1)
        if moving.size:
            pick = torch.from_numpy(moving)
            step = step_statistics(self._before_last[at[pick]], last[pick], current[pick])
            rows = decoded[moving]
            values[rows, self._layout.blocks["residual.velocity"]] = step.velocity.numpy()
            bent = run[moving] >= 2
            values[rows[bent], self._layout.blocks["residual.curvature"]] = step.curvature.numpy()[bent]
        self._before_last[at] = last
        self._last[at] = current

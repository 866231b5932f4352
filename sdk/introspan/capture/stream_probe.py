"""Tapped residual streams of a few steps in; their statistics over layers and tokens out."""

import numpy as np
import torch
from numpy.typing import NDArray

from introspan.capture.columns import Layout
from introspan.capture.projection import orthogonal_map, project
from introspan.capture.residual import direction, layer_statistics, step_statistics
from introspan.capture.rows import Selection
from introspan.capture.taps import Taps


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
        """Writes the residual signals of the rows into values [rows, columns].

        selection: the rows in the taps' buffers, in the order in which they were computed; a request may have
        several.
        """
        blocks = self._layout.blocks
        streams = self.taps.rows(len(selection))
        statistics = layer_statistics(streams.index_select(1, self._at), streams.index_select(1, self._after))
        for name in ("log_rms", "log_peak", "turn", "update_ratio", "nonfinite"):
            values[:, blocks[f"residual.{name}"]] = getattr(statistics, name).numpy()
        self._measure_steps(selection, statistics.unit, values)
        if self._map is not None:
            unit = direction(streams.index_select(1, self._projected)).unit
            values[:, blocks["residual.projection"]] = project(unit, self._map).flatten(1).numpy()

    def _measure_steps(self, selection: Selection, unit: torch.Tensor, values: NDArray[np.float32]) -> None:
        """Velocity and curvature, from each row's two predecessors: rows of this batch, or what was kept."""
        rows = np.flatnonzero(selection.burst >= 0).tolist()
        if not rows:
            return
        n = len(selection)
        # Vectors by one index: the batch's own, then what is kept of each row's request.
        slots = torch.from_numpy(selection.slot)
        bank = torch.cat([unit, self._last[slots], self._before_last[slots]])
        last, before_last, run = np.arange(n) + n, np.arange(n) + 2 * n, np.zeros(n, np.int64)
        newest: dict[int, int] = {}
        for row in rows:
            slot, position = int(selection.slot[row]), int(selection.position[row])
            earlier = newest.get(slot)
            if earlier is not None:
                last[row], before_last[row] = earlier, last[earlier]
            follows = selection.burst[row] > 0 and position == self._last_position[slot] + 1
            run[row] = self._run[slot] = self._run[slot] + 1 if follows else 0
            self._last_position[slot] = position
            newest[slot] = row
        self._write_steps(bank, last, before_last, run, values)
        ends = np.array(list(newest.values()))
        kept = torch.from_numpy(selection.slot[ends])
        self._before_last[kept] = bank[torch.from_numpy(last[ends])]
        self._last[kept] = bank[torch.from_numpy(ends)]

    def _write_steps(
        self,
        bank: torch.Tensor,
        last: NDArray[np.int64],
        before_last: NDArray[np.int64],
        run: NDArray[np.int64],
        values: NDArray[np.float32],
    ) -> None:
        moving = np.flatnonzero(run >= 1)
        if not moving.size:
            return
        step = step_statistics(
            bank[torch.from_numpy(before_last[moving])],
            bank[torch.from_numpy(last[moving])],
            bank[torch.from_numpy(moving)],
        )
        values[moving, self._layout.blocks["residual.velocity"]] = step.velocity.numpy()
        bent = run[moving] >= 2
        values[moving[bent], self._layout.blocks["residual.curvature"]] = step.curvature.numpy()[bent]

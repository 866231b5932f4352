"""Tapped residual streams of a few steps in; their statistics over layers and tokens out."""

import numpy as np
import torch
from numpy.typing import NDArray

from introspan.capture.columns import Layout
from introspan.capture.rows import Selection
from introspan.capture.stream.points import points_of
from introspan.capture.stream.projection import orthogonal_map, project
from introspan.capture.stream.residual import curvature, direction, layer_statistics, step
from introspan.capture.stream.succession import Successions
from introspan.capture.taps.streams import Taps
from introspan.observation import Disabled


class StreamProbe:
    """Measures the residual stream at the layout's layers.

    Keeps the last two unit vectors of each request, for velocity and curvature.
    """

    def __init__(self, layout: Layout, taps: Taps, capacity: int, hidden_size: int) -> None:
        self.taps = taps
        self._layout = layout
        self._points = points_of(layout, taps)
        self._map = torch.from_numpy(orthogonal_map(hidden_size)) if layout.projection_layers else None
        shape = (capacity, len(layout.residual_layers), hidden_size)
        self._last = torch.zeros(shape)
        self._before_last = torch.zeros(shape)
        self._successions = Successions(capacity)

    def forget(self, slot: int) -> None:
        """Drops what is kept of a request whose slot is free again."""
        self._successions.forget(slot)

    def silence(self) -> Disabled:
        """What is said where a step's streams did not pass their taps."""
        return self._points.silence(self.taps.silent())

    def measure(self, selection: Selection, values: NDArray[np.float32]) -> None:
        """Writes the residual signals of the rows into values [rows, columns].

        selection: the rows in the taps' buffers, in the order in which they were computed; a request may have
        several.
        """
        blocks = self._layout.blocks
        # Computed on the host, also where the model is not: some rows of a few steps cross over at once.
        everywhere = direction(self.taps.rows(len(selection)).cpu())
        at = everywhere.select(self._points.at)
        statistics = layer_statistics(at, everywhere.select(self._points.after))
        for name in ("log_rms", "log_peak", "turn", "update_ratio", "nonfinite"):
            values[:, blocks[f"residual.{name}"]] = getattr(statistics, name).numpy()
        self._measure_steps(selection, at.unit, values)
        if self._map is not None:
            unit = everywhere.unit.index_select(1, self._points.projected)
            values[:, blocks["residual.projection"]] = project(unit, self._map).flatten(1).numpy()

    def _measure_steps(self, selection: Selection, unit: torch.Tensor, values: NDArray[np.float32]) -> None:
        """Velocity and curvature, from each row's two predecessors: rows of this batch, or what was kept."""
        found = self._successions.find(selection)
        if not found.newest:
            return
        bank = unit
        if found.going_on:
            kept = torch.stack([self._last[found.going_on], self._before_last[found.going_on]], dim=1)
            bank = torch.cat([unit, kept.flatten(0, 1)])
        self._write_steps(bank, found.last, found.before_last, found.run, values)
        self._keep(bank, found.newest, found.last)
        # Only now: of a step that failed above, what is kept belongs to the positions before it.
        self._successions.keep(found)

    def _write_steps(
        self,
        bank: torch.Tensor,
        last: list[int],
        before_last: list[int],
        run: list[int],
        values: NDArray[np.float32],
    ) -> None:
        moving = [row for row, length in enumerate(run) if length >= 1]
        if not moving:
            return
        later = step(_pick(bank, [last[row] for row in moving]), _pick(bank, moving))
        values[moving, self._layout.blocks["residual.velocity"]] = later.length.numpy()
        bent = [row for row in moving if run[row] >= 2]
        if not bent:
            return
        later = step(_pick(bank, [last[row] for row in bent]), _pick(bank, bent))
        earlier = step(
            _pick(bank, [before_last[row] for row in bent]), _pick(bank, [last[row] for row in bent])
        )
        values[bent, self._layout.blocks["residual.curvature"]] = curvature(earlier, later).numpy()

    def _keep(self, bank: torch.Tensor, newest: dict[int, int], last: list[int]) -> None:
        """Remembers the last two vectors of each request for the rows to come."""
        for slot in newest:
            self._successions.forget(slot)  # until both are written
        slots, rows = torch.tensor(list(newest)), list(newest.values())
        self._before_last.index_copy_(0, slots, _pick(bank, [last[row] for row in rows]))
        self._last.index_copy_(0, slots, _pick(bank, rows))


def _pick(bank: torch.Tensor, rows: list[int]) -> torch.Tensor:
    return bank.index_select(0, torch.tensor(rows))

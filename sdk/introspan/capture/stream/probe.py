"""Tapped residual streams of a few steps in; their statistics over layers and tokens out."""

import numpy as np
import torch
from numpy.typing import NDArray

from introspan.capture.columns import Layout
from introspan.capture.rows import Selection
from introspan.capture.stream.projection import orthogonal_map, project
from introspan.capture.stream.residual import curvature, direction, layer_statistics, step
from introspan.capture.taps.streams import Taps
from introspan.observation import Disabled


class StreamProbe:
    """Measures the residual stream at the layout's layers.

    Keeps the last two unit vectors of each request, for velocity and curvature.
    """

    def __init__(self, layout: Layout, taps: Taps, capacity: int, hidden_size: int) -> None:
        place = {point.layer: tap for tap, point in enumerate(taps.points)}
        self.taps = taps
        self._layout = layout
        self._always = set(layout.projection_layers).union(
            *((layer, layer + 1) for layer in layout.residual_layers)
        )
        self._at = torch.tensor([place[layer] for layer in layout.residual_layers])
        self._after = torch.tensor([place[layer + 1] for layer in layout.residual_layers])
        self._projected = torch.tensor(
            [place[layer] for layer in layout.projection_layers], dtype=torch.int64
        )
        self._map = torch.from_numpy(orthogonal_map(hidden_size)) if layout.projection_layers else None
        shape = (capacity, len(layout.residual_layers), hidden_size)
        self._last = torch.zeros(shape)
        self._before_last = torch.zeros(shape)
        self._last_position = [-2] * capacity
        self._run = [0] * capacity

    def forget(self, slot: int) -> None:
        """Drops what is kept of a request whose slot is free again."""
        self._last_position[slot] = -2

    def silence(self) -> Disabled:
        """What is said where a step's streams did not pass their taps.

        Layers that only canaries are measured at are asked for in no other step: named where no other is silent.
        """
        silent = self.taps.silent()
        layers = [layer for layer in silent if layer in self._always] or silent
        detail = f"the stream entering layers {layers} did not pass its tap exactly once in a step"
        return Disabled("residual", "tap_silent", detail)

    def measure(self, selection: Selection, values: NDArray[np.float32]) -> None:
        """Writes the residual signals of the rows into values [rows, columns].

        selection: the rows in the taps' buffers, in the order in which they were computed; a request may have
        several.
        """
        blocks = self._layout.blocks
        # Computed on the host, also where the model is not: some rows of a few steps cross over at once.
        everywhere = direction(self.taps.rows(len(selection)).cpu())
        at = everywhere.select(self._at)
        statistics = layer_statistics(at, everywhere.select(self._after))
        for name in ("log_rms", "log_peak", "turn", "update_ratio", "nonfinite"):
            values[:, blocks[f"residual.{name}"]] = getattr(statistics, name).numpy()
        self._measure_steps(selection, at.unit, values)
        if self._map is not None:
            unit = everywhere.unit.index_select(1, self._projected)
            values[:, blocks["residual.projection"]] = project(unit, self._map).flatten(1).numpy()

    def _measure_steps(self, selection: Selection, unit: torch.Tensor, values: NDArray[np.float32]) -> None:
        """Velocity and curvature, from each row's two predecessors: rows of this batch, or what was kept."""
        n = len(selection)
        slots, positions, bursts = (
            selection.slot.tolist(),
            selection.position.tolist(),
            selection.burst.tolist(),
        )
        # Vectors by one index: the batch's own, then the last and the one before of requests that go on from earlier.
        going_on: list[int] = []
        last, before_last, run = [0] * n, [0] * n, [0] * n
        newest: dict[int, int] = {}
        for row, (slot, position, burst) in enumerate(zip(slots, positions, bursts, strict=True)):
            if burst < 0:
                continue
            earlier = newest.get(slot)
            before = self._last_position[slot] if earlier is None else positions[earlier]
            if burst > 0 and position == before + 1:
                if earlier is None:
                    run[row] = self._run[slot] + 1
                    last[row], before_last[row] = n + 2 * len(going_on), n + 2 * len(going_on) + 1
                    going_on.append(slot)
                else:
                    run[row], last[row], before_last[row] = run[earlier] + 1, earlier, last[earlier]
            newest[slot] = row
        if not newest:
            return
        bank = unit
        if going_on:
            kept = torch.stack([self._last[going_on], self._before_last[going_on]], dim=1)
            bank = torch.cat([unit, kept.flatten(0, 1)])
        self._write_steps(bank, last, before_last, run, values)
        self._keep(bank, newest, last)
        # Only now: of a step that failed above, what is kept belongs to the positions before it.
        for slot, row in newest.items():
            self._run[slot], self._last_position[slot] = run[row], positions[row]

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
            self.forget(slot)  # until both are written
        slots, rows = torch.tensor(list(newest)), list(newest.values())
        self._before_last.index_copy_(0, slots, _pick(bank, [last[row] for row in rows]))
        self._last.index_copy_(0, slots, _pick(bank, rows))


def _pick(bank: torch.Tensor, rows: list[int]) -> torch.Tensor:
    return bank.index_select(0, torch.tensor(rows))

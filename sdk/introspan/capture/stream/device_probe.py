"""Tapped residual streams on a device in; what is computed of them there, to be taken once it is on the host, out."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from introspan.capture.columns import Layout
from introspan.capture.crossing import cross
from introspan.capture.kernels.projection import project
from introspan.capture.kernels.stream import Earlier, begin_statistics, statistics_of
from introspan.capture.part import Part
from introspan.capture.rows import Selection
from introspan.capture.stream.kept_rows import PLACES, KeptRows
from introspan.capture.stream.points import points_of
from introspan.capture.stream.projection import orthogonal_map
from introspan.capture.stream.succession import Succession, Successions
from introspan.capture.taps.streams import Taps
from introspan.observation import Disabled


class DeviceStreamProbe:
    """Measures what `StreamProbe` does, on the device of the taps' buffers, and waits for it nowhere.

    on_silent: called while numbers are taken, with the layers whose taps were silent in a step of theirs: of what is
    taken with them, nothing is true. places: requests of which rows are kept for velocity and curvature from one batch
    to the next; where there are more in the middle of a burst, one's next step is not measured.
    """

    def __init__(
        self,
        layout: Layout,
        taps: Taps,
        capacity: int,
        hidden_size: int,
        on_silent: Callable[[list[int]], None],
        places: int = PLACES,
    ) -> None:
        self.taps = taps
        self._layout = layout
        self._on_silent = on_silent
        self._silent_steps = np.zeros(len(taps.points), np.float32)
        self._launched = self._doubtful = 0
        self._points = points_of(layout, taps)
        tapped = taps.tapped(0, 0)
        self._device = tapped.device
        self._at, self._after, self._projected = (
            each.to(self._device) for each in (self._points.at, self._points.after, self._points.projected)
        )
        self._map = torch.from_numpy(orthogonal_map(hidden_size)).to(self._device)
        self._successions = Successions(capacity)
        self._kept = KeptRows(len(layout.residual_layers), hidden_size, tapped.dtype, self._device, places)

    def forget(self, slot: int) -> None:
        """Drops what is kept of a request whose slot is free again."""
        self._successions.forget(slot)
        self._kept.forget(slot)

    def silence(self) -> Disabled:
        """What is said where the first step's streams did not pass their taps. Waits for the device."""
        return self._points.silence(self.taps.silent())

    def launch(self, selection: Selection) -> list[Part]:
        """Begins to compute the residual signals of the rows in the taps' buffers, as `StreamProbe.measure` would.

        The first part says whether the taps were silent; it is to be taken first.
        """
        self._launched += 1
        h, silent, parts = self.taps.kept(len(selection)), self.taps.silent_steps(), list[Part]()
        if silent is not None:
            parts.append(Part("residual", silent.float(), self._take_silent))
        statistics = self._statistics(selection, h)
        parts.append(Part("residual", statistics, partial(self._take_statistics, self._launched)))
        if self._layout.projection_layers:
            projected = project(h, self._projected, self._map)
            parts.append(Part("residual", projected, self._take_projections))
        return parts

    def _statistics(self, selection: Selection, h: torch.Tensor) -> torch.Tensor:
        found = self._successions.find(selection)
        before = self._before(found, len(selection))
        for slot in found.newest:
            self._successions.forget(slot)  # until its rows are kept
        kept = self._kept.keep(selection, found)
        for slot in kept.lost:
            self._successions.forget(slot)
            found.newest.pop(slot, None)
        n, m = len(selection), len(kept.rows)
        # Each begins at an even place, 16 bytes: a kernel is compiled anew where memory lies otherwise.
        index = np.zeros((4, n + n % 2), np.int64)
        index[:2, :n], index[2, :m], index[3, :m] = before, kept.rows, kept.cells
        there = cross(torch.from_numpy(index), self._device)
        earlier = Earlier(there[0, :n], there[1, :n], self._kept.rows)
        statistics = begin_statistics(h, self._at, self._after, earlier)
        # Behind it: the cells that are written now may have been read by it.
        self._kept.rows.index_copy_(
            0, there[3, :m], h.index_select(0, there[2, :m]).index_select(1, self._at)
        )
        self._successions.keep(found)
        return statistics

    def _before(self, found: Succession, n: int) -> NDArray[np.int64]:
        """Where the rows one and two tokens before each are, int64 [2, n], as `Earlier` has it."""
        cells = [cell for slot in found.going_on for cell in self._kept.cells(slot)]
        places = np.concatenate([np.arange(n), n + np.array(cells, np.int64)])
        run = np.array(found.run)
        return np.stack(
            [
                np.where(run >= 1, places[found.last], -1),
                np.where(run >= 2, places[found.before_last], -1),
            ]
        )

    # The form of all that take: numbers, values.
    def _take_silent(self, numbers: NDArray[np.float32], _: NDArray[np.float32]) -> None:
        is_silent, self._silent_steps = numbers != self._silent_steps, numbers.copy()
        if not is_silent.any():
            return
        # What those steps left in the buffers was kept, and batches that were launched since may have followed on it.
        self._doubtful = self._launched
        self._successions.clear()
        self._on_silent(
            self._points.named([self.taps.points[tap].layer for tap in np.flatnonzero(is_silent)])
        )

    def _take_statistics(
        self, launched: int, numbers: NDArray[np.float32], values: NDArray[np.float32]
    ) -> None:
        found, blocks = statistics_of(torch.from_numpy(numbers)), self._layout.blocks
        for name in ("log_rms", "log_peak", "turn", "update_ratio", "nonfinite"):
            values[:, blocks[f"residual.{name}"]] = getattr(found.layers, name).numpy()
        if launched > self._doubtful:
            values[:, blocks["residual.velocity"]] = found.velocity.numpy()
            values[:, blocks["residual.curvature"]] = found.curvature.numpy()

    def _take_projections(self, numbers: NDArray[np.float32], values: NDArray[np.float32]) -> None:
        values[:, self._layout.blocks["residual.projection"]] = numbers.reshape(len(numbers), -1)

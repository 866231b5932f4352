"""Query rows and paged keys on a device in; what is computed of them there, to be taken once it is on the host, out."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from introspan.capture.attention.device_layer import DeviceLayer, layout_of
from introspan.capture.attention.groups import Group, cache_of, grouped
from introspan.capture.attention.kv_layout import StridedLayout, UnsupportedLayoutError
from introspan.capture.attention.rows import FIRST_CHECKS, AttentionRows
from introspan.capture.attention.self_check import failure
from introspan.capture.attention.statistics import PagedKeys
from introspan.capture.columns import Layout
from introspan.capture.crossing import cross
from introspan.capture.health import Health
from introspan.capture.kernels.paged_attention import Lengths, on_device, paged_statistics
from introspan.capture.part import Part
from introspan.capture.rows import Selection
from introspan.capture.taps.attention import AttentionTap, static_rows_of
from introspan.capture.taps.block_table import NoBlockTableError, TablesOf
from introspan.observation import Disabled

_NAMES = ("entropy", "sink_mass", "recent_mass")


class DeviceAttentionProbe(AttentionRows):
    """Measures what `AttentionProbe` does, on the device of the taps' buffers, and waits for it nowhere.

    on_silent: called while numbers are taken, with the layers that did not pass their taps once in each step of theirs;
    their rows keep no values, and neither do those of an output that is not the backend's, after which attention is
    switched off.
    """

    def __init__(
        self,
        layout: Layout,
        taps: Sequence[AttentionTap],
        byte_budget: int,
        health: Health,
        on_silent: Callable[[list[int]], None],
    ) -> None:
        super().__init__(layout, taps, byte_budget, health)
        if str(taps[0].point.module.impl.kv_cache_dtype).startswith("fp8"):
            self._bytes_per_key //= taps[0].q.element_size()
        self._on_silent = on_silent
        self._static = static_rows_of(taps)
        self._measured = [DeviceLayer(tap) for tap in taps]
        self._device = taps[0].q.device
        self._groups: list[Group[StridedLayout]] = []
        self._batch: Tensor | None = None
        self._picked: list[Tensor] = []
        self._to_check = range(0)
        self._checked = 0
        self._silent_steps = np.zeros(len(taps), np.float32)

    def select(self, selection: Selection) -> None:
        """Asks the taps for the rows of the coming forward that the byte budget allows."""
        super().select(selection)
        self._picked = []
        if self._arriving.size:
            self._batch = cross(torch.from_numpy(selection.batch[self._arriving]), self._device)

    def take_block_tables(self, tables: TablesOf) -> None:
        """Takes the step's block tables from the engine, which writes over them in the next one."""
        if self._batch is None or not self._arriving.size:
            return
        try:
            self._groups = self._groups or grouped(
                self._taps, layout_of, lambda tap: tables(tap.point.module.layer_name).ids
            )
            for group in self._groups:
                table = tables(self._taps[group.members[0]].point.module.layer_name)
                self._picked.append(table.of(self._batch).divided(group.layout.block_size))
        except (UnsupportedLayoutError, NoBlockTableError) as error:
            self._health.refuse(Disabled("attention", "unsupported_cache", str(error)))

    def launch(self) -> list[Part]:
        """Begins to compute the attention signals of the rows that wait, as `AttentionProbe.measure` would."""
        count = len(self._rows)
        if not count:
            return []
        if any(cache_of(tap).dim() < 4 for tap in self._taps):  # the engine has let go of its cache
            self._health.attention_rows_skipped += count
            return []
        lengths = on_device(np.array(self._lengths), self._device)
        tables = [torch.cat(group.tables) for group in self._groups]
        numbers = [self._static.silent_steps().float()]
        check = self._to_check[:FIRST_CHECKS]
        if check:
            numbers.append(self._off_by(tables, lengths, check))
        for group, table in zip(self._groups, tables, strict=True):
            layers = [self._measured[i] for i in group.members]
            keys = PagedKeys(
                [layer.cache for layer in layers], table, group.layout, _scales(layers, group.layout)
            )
            q = [layer.tap.q[:count] for layer in layers]
            found = paged_statistics(q, keys, lengths, group.scoring)
            numbers += [getattr(found, name).flatten() for name in _NAMES]
        take = partial(self._take, np.array(self._rows), len(check))
        return [Part("attention", torch.cat(numbers), take)]

    def warm_up(self) -> None:
        """Computes a row that nobody asked for, so that kernels are compiled before one does. Caches must be bound."""
        table = torch.zeros(1, 4, dtype=torch.int32, device=self._device)
        lengths = on_device(np.ones(1, np.int64), self._device)
        try:
            groups = grouped(self._taps, layout_of, lambda _: table)
        except UnsupportedLayoutError as error:
            self._health.refuse(Disabled("attention", "unsupported_cache", str(error)))
            return
        for group in groups:
            layers = [self._measured[i] for i in group.members]
            caches, scales = [layer.cache for layer in layers], _scales(layers, group.layout)
            keys = PagedKeys(caches, table, group.layout, scales)
            paged_statistics([layer.tap.q[:1] for layer in layers], keys, lengths, group.scoring)
            layers[0].off_by(slice(0, 1), table, lengths, group)

    def deselect(self) -> None:
        """Asks for nothing."""
        super().deselect()
        self._batch, self._picked = None, []

    def drop(self) -> None:
        """Forgets the rows that wait."""
        super().drop()
        self._to_check = range(0)
        for group in self._groups:
            group.tables.clear()

    def _accept(self, batch: NDArray[np.int64], lengths: NDArray[np.int64]) -> bool:
        if not self._picked:
            raise RuntimeError(f"no block tables came with a step of {batch.size} rows of attention")
        self._static.complete()  # counted there; what it comes to is among the numbers
        for group, table in zip(self._groups, self._picked, strict=True):
            group.tables.append(table)
        start, stop = len(self._rows), len(self._rows) + lengths.size
        if self._taps[0].with_output and self._to_check.stop in {0, start}:
            self._to_check = range(self._to_check.start if self._to_check else start, stop)
        return True

    def _keys(self, slots: list[int], lengths: list[int]) -> int:  # noqa: ARG002 - kernels read keys once a row
        return sum(lengths)

    def _is_to_be_checked(self, before: int, after: int) -> bool:
        # What was checked is known steps later, and may be lost on the way.
        return self._checked < FIRST_CHECKS or super()._is_to_be_checked(max(before, FIRST_CHECKS), after)

    def _off_by(self, tables: list[Tensor], lengths: Lengths, rows: range) -> Tensor:
        """How far the recomputed outputs of some rows are from the backend's, by layer [taps]."""
        own = slice(rows.start, rows.stop)
        # Copies: kernels are compiled anew for memory that begins at another place.
        some = Lengths(lengths.keys[own].clone(), lengths.longest)
        off: dict[int, Tensor] = {}
        for group, table in zip(self._groups, tables, strict=True):
            picked = table[own].clone()
            for i in group.members:
                off[i] = self._measured[i].off_by(own, picked, some, group)
        return torch.stack([off[i] for i in range(len(self._taps))])

    def _take(
        self, rows: NDArray[np.int64], checked: int, numbers: NDArray[np.float32], values: NDArray[np.float32]
    ) -> None:
        taps = len(self._taps)
        silent, numbers = numbers[:taps], numbers[taps:]
        is_silent, self._silent_steps = silent != self._silent_steps, silent.copy()
        if is_silent.any():
            self._on_silent([self._layers[tap] for tap in np.flatnonzero(is_silent)])
            return
        # Not only the rows that were checked: those that were launched before it was known are as wrong.
        if not self._health.is_on("attention"):
            return
        if checked:
            off, numbers = numbers[:taps], numbers[taps:]
            for layer, by in zip(self._measured, off.tolist(), strict=True):
                if not by <= layer.tolerance:
                    self._health.refuse(failure(layer.tap.layer, by))
                    return
            self._checked += checked
        self._write(rows, numbers, values)

    def _write(
        self, rows: NDArray[np.int64], numbers: NDArray[np.float32], values: NDArray[np.float32]
    ) -> None:
        blocks = np.full((len(_NAMES), rows.size, len(self._layers), self._heads), np.nan, np.float32)
        start = 0
        for group in self._groups:
            shape = (len(_NAMES), len(group.members), rows.size, self._heads)
            stop = start + int(np.prod(shape))
            blocks[:, :, group.members] = numbers[start:stop].reshape(shape).swapaxes(1, 2)
            start = stop
        for name, block in zip(_NAMES, blocks, strict=True):
            values[rows, self._blocks[f"attention.{name}"]] = block.reshape(rows.size, -1)


def _scales(layers: list[DeviceLayer], layout: StridedLayout) -> list[Tensor] | None:
    scales = [layer.key_scale(layout) for layer in layers]
    return None if scales[0] is None else [scale for scale in scales if scale is not None]

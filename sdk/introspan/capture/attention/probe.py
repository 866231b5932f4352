"""Query rows of a few steps and the paged key cache in; entropy and masses of each head out."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from introspan.capture.attention.groups import Group, cache_of, grouped
from introspan.capture.attention.kv_layout import KvLayout, cpu_layout
from introspan.capture.attention.rows import AttentionRows
from introspan.capture.attention.self_check import failure, longest, off_by, tolerance_of
from introspan.capture.attention.statistics import (
    PagedKeys,
    gather_blocks,
    paged_statistics,
    recompute_output,
)
from introspan.capture.columns import Layout
from introspan.capture.health import Health
from introspan.capture.taps.attention import AttentionTap, take_block_tables
from introspan.capture.taps.block_table import TablesOf
from introspan.observation import Disabled


class AttentionProbe(AttentionRows):
    """Measures attention at the layout's layers, reading at most `byte_budget` bytes of keys at once."""

    def __init__(
        self, layout: Layout, taps: Sequence[AttentionTap], byte_budget: int, health: Health
    ) -> None:
        super().__init__(layout, taps, byte_budget, health)
        self._groups: list[Group[KvLayout]] = []

    def take_block_tables(self, tables: TablesOf) -> None:
        """Takes the step's block tables from the engine: of a graph's attention calls no tap saw them."""
        if self._arriving.size:
            take_block_tables(self._taps, tables)

    def measure(self, values: NDArray[np.float32]) -> None:
        """Writes the attention signals of the rows that wait into values [rows, columns]."""
        if not self._rows or self._is_silent([tap.layer for tap in self._taps if tap.was_silent()]):
            return
        count = len(self._rows)
        if any(
            cache_of(tap).dim() != 4 for tap in self._taps
        ):  # the engine is ending and has let go of its cache
            self._health.attention_rows_skipped += count
            return
        # A slot keeps its request as long as rows of it wait.
        request, lengths = np.array(self._slots), np.array(self._lengths)
        shape = (count, len(self._layers), self._heads)
        result = {
            name: np.full(shape, np.nan, np.float32) for name in ("entropy", "sink_mass", "recent_mass")
        }
        for group in self._groups:
            taps = [self._taps[i] for i in group.members]
            keys = PagedKeys([cache_of(tap) for tap in taps], torch.cat(group.tables), group.layout)
            q = [tap.q[:count] for tap in taps]
            statistics = paged_statistics(q, keys, request, lengths, group.scoring)
            for name, block in result.items():
                block[:, group.members] = getattr(statistics, name).transpose(0, 1).numpy()
        for name, block in result.items():
            values[self._rows, self._blocks[f"attention.{name}"]] = block.reshape(count, -1)

    def drop(self) -> None:
        """Forgets the rows that wait."""
        super().drop()
        for group in self._groups:
            group.tables.clear()

    def _accept(self, batch: NDArray[np.int64], lengths: NDArray[np.int64]) -> bool:
        if self._is_silent([tap.layer for tap in self._taps if not tap.complete()]):
            return False
        self._groups = self._groups or grouped(self._taps, _layout, _table)
        index = torch.from_numpy(batch)
        tables = [
            _table(self._taps[group.members[0]]).index_select(0, index).long() for group in self._groups
        ]
        if self._taps[0].with_output and not self._check(tables, torch.from_numpy(lengths)):
            return False
        for group, table in zip(self._groups, tables, strict=True):
            group.tables.append(table)
        return True

    def _keys(self, slots: list[int], lengths: list[int]) -> int:
        # Rows of a request are computed from one reading of its keys, as far as the newest of them needs.
        return sum(dict(zip(slots, lengths, strict=True)).values())

    def _is_silent(self, layers: list[int]) -> bool:
        """Whether there are layers that a step's taps are missing of; then attention is switched off."""
        if layers:
            detail = f"attention of layers {layers} did not pass its tap exactly once in a step"
            self._health.refuse(Disabled("attention", "tap_silent", detail))
        return bool(layers)

    def _check(self, tables: list[torch.Tensor], lengths: torch.Tensor) -> bool:
        """Whether the backend's own outputs follow from the keys and values as they are read here."""
        start, stop = len(self._rows), len(self._rows) + lengths.numel()
        for group, table in zip(self._groups, tables, strict=True):
            for tap in (self._taps[i] for i in group.members):
                k, v = gather_blocks(cache_of(tap), table, lengths, group.layout)
                expected = recompute_output(tap.q[start:stop], k, v, lengths, group.scoring)
                off = float(off_by(expected, tap.output[start:stop].float(), longest(v)))
                if not off <= tolerance_of(tap.q.dtype):
                    self._health.refuse(failure(tap.layer, off))
                    return False
        return True


def _layout(tap: AttentionTap) -> KvLayout:
    return cpu_layout(tap.point.module.isa, cache_of(tap))


def _table(tap: AttentionTap) -> torch.Tensor:
    assert tap.block_table is not None
    return tap.block_table

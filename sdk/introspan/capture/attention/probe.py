"""Query rows of a few steps and the paged key cache in; entropy and masses of each head out."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from introspan.capture.attention.kv_layout import KvLayout, cpu_layout
from introspan.capture.attention.statistics import (
    PagedKeys,
    Scoring,
    gather_blocks,
    paged_statistics,
    recompute_output,
)
from introspan.capture.columns import Layout
from introspan.capture.health import Health
from introspan.capture.rows import Selection
from introspan.capture.taps.attention import AttentionTap, take_block_tables
from introspan.observation import Disabled

_FIRST_CHECKS = 8
_CHECK_EVERY = 10_000

# Of an output's length, in float32: scores of a hundred have errors of 1e-4. Types of fewer bits have eight roundings.
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Layers that are computed together: same scoring, layout and block table; members are places in the taps."""

    members: list[int]
    scoring: Scoring
    layout: KvLayout
    tables: list[torch.Tensor] = field(default_factory=list)
    """Block ids of the waiting rows, [rows of a step, blocks] a step."""


class AttentionProbe:
    """Measures attention at the layout's layers, reading at most `byte_budget` bytes of keys at once."""

    def __init__(self, layout: Layout, taps: list[AttentionTap], byte_budget: int, health: Health) -> None:
        self._taps = taps
        self._layers = layout.attention_layers
        self._blocks = layout.blocks
        self._heads = taps[0].q.shape[1]
        impl = taps[0].point.module.impl
        self._bytes_per_key = impl.num_kv_heads * impl.head_size * taps[0].q.element_size() * len(taps)
        self._byte_budget = byte_budget
        self._health = health
        self._rows_seen = 0
        self._arriving: NDArray[np.int64] = np.zeros(0, np.int64)
        self._groups: list[_Group] = []
        self._rows: list[int] = []
        self._slots: list[int] = []
        self._lengths: list[int] = []
        # The blocks that a window has left are given to other requests while theirs goes on.
        self.can_wait = all(_window(tap.point.module.impl) is None for tap in taps)
        """Whether rows may be computed steps later, as long as their requests keep their blocks."""

    def is_too_much(self, selection: Selection) -> bool:
        """Whether the rows that wait must be computed before these, lest more is read at once than the budget."""
        if not self._rows:
            return False
        coming = self._within_budget(selection)
        # Rows of a request are computed from one reading of its keys, as far as the newest of them needs.
        slots = self._slots + selection.slot[coming].tolist()
        lengths = self._lengths + (selection.position[coming] + 1).tolist()
        keys = sum(dict(zip(slots, lengths, strict=True)).values())
        return bool(keys * self._bytes_per_key > self._byte_budget)

    def select(self, selection: Selection) -> None:
        """Asks the taps for the rows of the coming forward that the byte budget allows."""
        self._arriving = self._within_budget(selection)
        skipped = np.count_nonzero(selection.attention) - self._arriving.size
        self._health.attention_rows_skipped += int(skipped)
        if not self._arriving.size:
            return
        index = torch.from_numpy(selection.token[self._arriving])
        after = self._rows_seen + self._arriving.size
        checks = self._rows_seen < _FIRST_CHECKS or after // _CHECK_EVERY != self._rows_seen // _CHECK_EVERY
        for tap in self._taps:
            tap.select(index, len(self._rows), with_output=checks)

    def deselect(self) -> None:
        """Asks for nothing."""
        if self._arriving.size:
            self._arriving = self._arriving[:0]
            for tap in self._taps:
                tap.deselect()

    # Any: vLLM's metadata of a backend.
    def take_block_tables(self, metadata: Mapping[str, Any]) -> None:
        """Takes the step's block tables from the engine: of a graph's attention calls no tap saw them.

        metadata: of each layer, by its name.
        """
        if self._arriving.size:
            take_block_tables(self._taps, metadata)

    def take_in(self, selection: Selection, before: int) -> None:
        """Adds the step's rows to those that wait; before counts the rows of earlier steps."""
        rows = self._arriving
        if not rows.size or any(tap.failed for tap in self._taps):
            return
        if self._is_silent([tap.layer for tap in self._taps if not tap.complete()]):
            return
        self._groups = self._groups or _grouped(self._taps)
        batch = torch.from_numpy(selection.batch[rows])
        tables = [_table(self._taps[group.members[0]], batch) for group in self._groups]
        lengths = selection.position[rows] + 1
        if self._taps[0].with_output and not self._check(tables, torch.from_numpy(lengths)):
            return
        for group, table in zip(self._groups, tables, strict=True):
            group.tables.append(table)
        self._rows += (before + rows).tolist()
        self._slots += selection.slot[rows].tolist()
        self._lengths += lengths.tolist()
        self._rows_seen += rows.size

    def measure(self, values: NDArray[np.float32]) -> None:
        """Writes the attention signals of the rows that wait into values [rows, columns]."""
        if not self._rows or self._is_silent([tap.layer for tap in self._taps if tap.was_silent()]):
            return
        count = len(self._rows)
        if any(
            _cache(tap).dim() != 4 for tap in self._taps
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
            keys = PagedKeys([_cache(tap) for tap in taps], torch.cat(group.tables), group.layout)
            q = [tap.q[:count] for tap in taps]
            statistics = paged_statistics(q, keys, request, lengths, group.scoring)
            for name, block in result.items():
                block[:, group.members] = getattr(statistics, name).transpose(0, 1).numpy()
        for name, block in result.items():
            values[self._rows, self._blocks[f"attention.{name}"]] = block.reshape(count, -1)

    def drop(self) -> None:
        """Forgets the rows that wait."""
        self._rows, self._slots, self._lengths = [], [], []
        for group in self._groups:
            group.tables.clear()

    def _is_silent(self, layers: list[int]) -> bool:
        """Whether there are layers that a step's taps are missing of; then attention is switched off."""
        if layers:
            detail = f"attention of layers {layers} did not pass its tap exactly once in a step"
            self._health.refuse(Disabled("attention", "tap_silent", detail))
        return bool(layers)

    def _within_budget(self, selection: Selection) -> NDArray[np.int64]:
        """Rows of a step whose keys, taken in order, the budget allows to be read."""
        rows = np.flatnonzero(selection.attention)
        return rows[np.cumsum((selection.position[rows] + 1) * self._bytes_per_key) <= self._byte_budget]

    def _check(self, tables: list[torch.Tensor], lengths: torch.Tensor) -> bool:
        """Whether the backend's own outputs follow from the keys and values as they are read here."""
        start, stop = len(self._rows), len(self._rows) + lengths.numel()
        for group, table in zip(self._groups, tables, strict=True):
            for tap in (self._taps[i] for i in group.members):
                k, v = gather_blocks(_cache(tap), table, lengths, group.layout)
                expected = recompute_output(tap.q[start:stop], k, v, lengths, group.scoring)
                off = _off(expected, tap.output[start:stop].float(), v)
                if not off <= max(_TOLERANCE, 8 * torch.finfo(tap.q.dtype).eps):
                    detail = (
                        f"layer {tap.layer}: recomputed attention output is off by {off:.3g} of its length"
                    )
                    self._health.refuse(Disabled("attention", "self_check_failed", detail))
                    return False
        return True


def _off(expected: torch.Tensor, actual: torch.Tensor, v: torch.Tensor) -> float:
    """How far the row and head that is furthest off is, relative to its length. actual: [rows, heads, d].

    An output as short as a thousandth of a value vector is a difference of longer ones: it is measured by that. What is
    finite neither here nor there says nothing.
    """
    expected = expected.view_as(actual)
    nowhere = ~(torch.isfinite(expected) | torch.isfinite(actual)).all(dim=-1)
    shortest = 1e-3 * float(v.norm(dim=-1).nan_to_num(0.0, 0.0, 0.0).max())
    off = (expected - actual).norm(dim=-1) / actual.norm(dim=-1).clamp(min=shortest)
    return float(off.masked_fill(nowhere, 0.0).max())


def _grouped(taps: list[AttentionTap]) -> list[_Group]:
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for i, tap in enumerate(taps):
        impl = tap.point.module.impl
        assert tap.block_table is not None
        own = i if impl.sinks is not None or impl.alibi_slopes is not None else -1
        form = (impl.scale, _window(impl), impl.logits_soft_cap)
        groups[form, tuple(_cache(tap).shape), tap.block_table.data_ptr(), own].append(i)
    return [
        _Group(members, _scoring(taps[members[0]]), _layout(taps[members[0]])) for members in groups.values()
    ]


# Any: vLLM's attention implementation is not typed.
def _window(impl: Any) -> int | None:
    window = int(impl.sliding_window)
    return None if window < 0 else window


def _scoring(tap: AttentionTap) -> Scoring:
    impl = tap.point.module.impl
    slopes = impl.alibi_slopes
    return Scoring(
        scale=float(impl.scale),
        window=_window(impl),
        softcap=float(impl.logits_soft_cap) or None,
        alibi_slopes=None if slopes is None else slopes.float(),
        sinks=None if impl.sinks is None else impl.sinks.float(),
    )


def _layout(tap: AttentionTap) -> KvLayout:
    return cpu_layout(tap.point.module.isa, _cache(tap))


def _cache(tap: AttentionTap) -> torch.Tensor:
    cache = tap.point.module.kv_cache
    assert isinstance(cache, torch.Tensor)
    return cache


def _table(tap: AttentionTap, batch: torch.Tensor) -> torch.Tensor:
    assert tap.block_table is not None
    return tap.block_table.index_select(0, batch).long()

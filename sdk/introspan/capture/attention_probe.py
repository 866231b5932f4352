"""Query rows of a step and the paged key cache in; entropy and masses of each head out."""

from collections import defaultdict
from collections.abc import Hashable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from introspan.capture.attention import PagedKeys, Scoring, gather_blocks, paged_statistics, recompute_output
from introspan.capture.attention_taps import AttentionTap
from introspan.capture.columns import Layout
from introspan.capture.health import Health
from introspan.capture.kv_layout import KvLayout, cpu_layout
from introspan.capture.rows import Selection
from introspan.observation import Disabled

_FIRST_CHECKS = 8
_CHECK_EVERY = 10_000


class AttentionProbe:
    """Measures attention at the layout's layers, reading at most `byte_budget` bytes of keys a step."""

    def __init__(self, layout: Layout, taps: list[AttentionTap], byte_budget: int, health: Health) -> None:
        self.taps = taps
        self._heads = taps[0].q.shape[1] if taps else 0
        self._layers = layout.attention_layers
        self._blocks = layout.blocks
        self._byte_budget = byte_budget
        self._health = health
        self._rows_seen = 0
        self._rows: NDArray[np.int64] = np.zeros(0, np.int64)
        self._groups: list[tuple[list[int], Scoring, KvLayout]] | None = None

    def select(self, selection: Selection) -> None:
        """Asks the taps for the rows of the coming forward that the byte budget allows."""
        rows = np.flatnonzero(selection.attention)
        keys = self.taps[0].point.module.impl
        bytes_per_key = keys.num_kv_heads * keys.head_size * self.taps[0].q.element_size() * len(self.taps)
        within = np.cumsum((selection.position[rows] + 1) * bytes_per_key) <= self._byte_budget
        self._health.attention_rows_skipped += int(np.count_nonzero(~within))
        self._rows = rows[within]
        if not self._rows.size:
            return
        index = torch.from_numpy(selection.token[self._rows])
        checks = self._checks_now()
        for tap in self.taps:
            tap.select(index, with_output=checks)

    def deselect(self) -> None:
        """Asks for nothing."""
        self._rows = np.zeros(0, np.int64)
        for tap in self.taps:
            tap.deselect()

    def _checks_now(self) -> bool:
        after = self._rows_seen + self._rows.size
        return self._rows_seen < _FIRST_CHECKS or after // _CHECK_EVERY != self._rows_seen // _CHECK_EVERY

    def measure(self, selection: Selection, values: NDArray[np.float32]) -> None:
        """Writes the attention signals of the step's rows into values [rows, columns]."""
        rows = self._rows
        if not rows.size:
            return
        silent = [tap.layer for tap in self.taps if tap.fired != 1]
        if silent:
            detail = f"attention of layers {silent} did not pass its tap exactly once in a step"
            self._health.refuse(Disabled("attention", "tap_silent", detail))
            return
        lengths = torch.from_numpy(selection.position[rows] + 1)
        batch = torch.from_numpy(selection.batch[rows])
        if self._checks_now() and not self._check(batch, lengths):
            return
        self._rows_seen += rows.size
        shape = (rows.size, len(self._layers), self._heads)
        result = {
            name: np.full(shape, np.nan, np.float32) for name in ("entropy", "sink_mass", "recent_mass")
        }
        for members, scoring, layout in self._grouped():
            taps = [self.taps[i] for i in members]
            q = torch.stack([tap.q[: rows.size] for tap in taps])
            keys = PagedKeys([_cache(tap) for tap in taps], _table(taps[0], batch), layout)
            statistics = paged_statistics(q, keys, lengths, scoring)
            for name, block in result.items():
                block[:, members] = getattr(statistics, name).transpose(0, 1).numpy()
        for name, block in result.items():
            values[rows, self._blocks[f"attention.{name}"]] = block.reshape(rows.size, -1)

    def _grouped(self) -> list[tuple[list[int], Scoring, KvLayout]]:
        """Taps that can be computed together: same scoring, layout and block table."""
        if self._groups is None:
            groups: dict[Hashable, list[int]] = defaultdict(list)
            for i, tap in enumerate(self.taps):
                assert tap.block_table is not None
                impl = tap.point.module.impl
                own = i if impl.sinks is not None or impl.alibi_slopes is not None else -1
                groups[(scoring_key(impl), tuple(_cache(tap).shape), tap.block_table.data_ptr(), own)].append(
                    i
                )
            self._groups = [
                (members, _scoring(self.taps[members[0]]), _layout(self.taps[members[0]]))
                for members in groups.values()
            ]
        return self._groups

    def _check(self, batch: torch.Tensor, lengths: torch.Tensor) -> bool:
        """Whether the backend's own outputs follow from the keys and values as they are read here."""
        for tap in self.taps:
            layout = _layout(tap)
            k, v = gather_blocks(_cache(tap), _table(tap, batch), lengths, layout)
            count = lengths.numel()
            expected = recompute_output(tap.q[:count], k, v, lengths, _scoring(tap))
            actual = tap.output[:count].flatten(1).float()
            # Rounding of the served dtype, times a few for the sum over keys.
            tolerance = 16 * torch.finfo(tap.q.dtype).eps * max(1.0, float(v.abs().max()))
            error = float((expected - actual).abs().max())
            if not error <= max(tolerance, 1e-4 * float(actual.abs().max())):
                detail = f"layer {tap.layer}: recomputed attention output is off by {error:.3g}"
                self._health.refuse(Disabled("attention", "self_check_failed", detail))
                return False
        return True


# Any: vLLM's attention implementation is not typed.
def scoring_key(impl: Any) -> Hashable:
    """What layers must share to be scored together."""
    return (impl.scale, _window(impl), impl.logits_soft_cap)


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

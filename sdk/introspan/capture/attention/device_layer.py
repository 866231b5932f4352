"""One tapped layer on a device in; where its keys lie, what they are scaled by, and its output, recomputed, out."""

import torch
from torch import Tensor

from introspan.capture.attention.groups import Group, cache_of
from introspan.capture.attention.kv_layout import StridedLayout, gpu_layout
from introspan.capture.attention.self_check import longest, off_by, tolerance_of
from introspan.capture.attention.statistics import PagedKeys
from introspan.capture.crossing import cross
from introspan.capture.kernels.paged_attention import Lengths, paged_output
from introspan.capture.taps.attention import AttentionTap


def layout_of(tap: AttentionTap) -> StridedLayout:
    """How the layer's cache holds keys and values. Raises UnsupportedLayoutError where that was not verified."""
    impl = tap.point.module.impl
    name, dtype = type(impl).__name__, str(impl.kv_cache_dtype)
    return gpu_layout(name, cache_of(tap), impl.num_kv_heads, impl.head_size, dtype)


class DeviceLayer:
    """One layer, as it is found when rows are computed: its cache is bound after the model was loaded."""

    def __init__(self, tap: AttentionTap) -> None:
        self.tap = tap
        # vLLM quantises queries in front of the backend where that multiplies numbers of eight bits.
        self._is_quantised = getattr(tap.point.module, "query_quant", None) is not None
        self.tolerance = tolerance_of(tap.q.dtype, has_rough_weights=self._is_quantised)
        """How far the recomputed output may be off."""

    @property
    def cache(self) -> Tensor:
        """The layer's KV cache."""
        return cache_of(self.tap)

    def key_scale(self, layout: StridedLayout) -> Tensor | None:
        """What products of its queries and keys are to be multiplied with; None for nothing."""
        scale = self._scale("_k_scale", layout)
        if scale is not None and self._is_quantised:
            # Nobody but the kernel knows the number, and none is asked: it is multiplied there.
            scale = scale * cross(self.tap.point.module._q_scale, scale.device)  # noqa: SLF001 - vLLM's own name
        return scale

    def off_by(self, rows: slice, table: Tensor, lengths: Lengths, group: Group[StridedLayout]) -> Tensor:
        """How far the output of some rows is from the backend's; table, lengths: theirs alone."""
        layout, value_scale = group.layout, self._scale("_v_scale", group.layout)
        key_scale = self.key_scale(layout)
        keys = PagedKeys([self.cache], table, layout, None if key_scale is None else [key_scale])
        expected = paged_output(self.tap.q[rows], keys, lengths, group.scoring, value_scale)
        values = self._newest_values(table, lengths.keys, layout)
        scaled = values if value_scale is None else values * value_scale
        return off_by(expected, self.tap.output[rows].float(), longest(scaled))

    def _scale(self, name: str, layout: StridedLayout) -> Tensor | None:
        if layout.stored.itemsize > 1:
            return None
        scale: Tensor = getattr(self.tap.point.module, name)
        return cross(scale, self.tap.q.device)

    def _newest_values(self, table: Tensor, keys: Tensor, layout: StridedLayout) -> Tensor:
        """The values of the blocks that hold each row's last key, 0 behind it: float32 [rows, kv_heads, tokens, d]."""
        last = keys - 1
        blocks = table.gather(1, (last // layout.block_size).unsqueeze(1)).flatten()
        values = layout.values(self.cache)
        if layout.stored.itemsize == 1:  # not every device picks rows of fp8
            found = values.view(torch.uint8).index_select(0, blocks).view(layout.stored).float()
        else:
            found = values.index_select(0, blocks).float()
        inside = torch.arange(layout.block_size, device=last.device) <= (last % layout.block_size).unsqueeze(
            1
        )
        return torch.where(inside[:, None, :, None], found, 0.0)

"""Query rows and paged caches on a GPU in; entropy, masses and recomputed outputs of each head out.

The torch functions of `capture/attention/statistics.py` are what this is held against. Nothing here waits for the
device.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from introspan.capture.attention.kv_layout import StridedLayout, UnsupportedLayoutError
from introspan.capture.attention.statistics import AttentionStatistics, PagedKeys, Scoring
from introspan.capture.kernels.attention_merge import merge
from introspan.capture.kernels.attention_parts import add_up
from introspan_wire.signals import RECENT_KEYS

# What a window is where there is none: longer than any context.
_NO_WINDOW = 2**31 - 1

_FP8 = frozenset({torch.float8_e4m3fn, torch.float8_e5m2})
_OPERANDS = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


@dataclass(frozen=True, slots=True)
class Grain:
    """How finely keys are divided.

    tile_bytes: of keys scored at once, what fits a small GPU's shared memory twice; range_keys: passed by one
    program; most_ranges: of one row, of more keys they are longer, so that what is merged is bounded.
    """

    tile_bytes: int = 16_384
    tile_keys: int = 64
    range_keys: int = 512
    most_ranges: int = 64

    def tile(self, vector_bytes: int) -> int:
        """Keys scored at once: a power of two, at least 16."""
        return max(16, min(self.tile_keys, self.tile_bytes // vector_bytes))

    def ranges(self, keys: int, tile: int) -> tuple[int, int]:
        """How many ranges so many keys are divided into, and how many keys each has, whole tiles."""
        # A window begins anywhere in a tile: its keys may touch one more.
        tiles = triton.cdiv(keys - 1, tile) + 1
        of_range = max(self.range_keys // tile, triton.cdiv(tiles, self.most_ranges), 1)
        return triton.cdiv(tiles, of_range), of_range * tile


_GRAIN = Grain()


@dataclass(frozen=True, slots=True, eq=False)
class Lengths:
    """Keys of each row before any window: int [rows], on the device, and the most that a row may have.

    longest is known on the host: it says how many programs there are, and the device cannot be asked without waiting.
    """

    keys: Tensor
    longest: int


def on_device(lengths: NDArray[np.int64], device: torch.device) -> Lengths:
    """The same there; from pinned memory, so that the copy need not wait for what the device has to do."""
    host = torch.from_numpy(lengths)
    there = host if device.type == "cpu" else host.pin_memory().to(device, non_blocking=True)
    return Lengths(there, int(lengths.max(initial=1)))


def paged_statistics(
    q: Sequence[Tensor], keys: PagedKeys, lengths: Lengths, scoring: Scoring, grain: Grain = _GRAIN
) -> AttentionStatistics:
    """Statistics [layers, rows, heads] of rows whose keys lie in paged caches, on the caches' device.

    q: of each layer [rows, heads, d]; keys.block_table: on the device, each row with all blocks of its own keys. Keys
    are read once a row: of a request there is seldom more than one.
    """
    return _attend(q, keys, lengths, scoring, grain, with_output=False)[0]


def paged_output(
    q: Tensor,
    keys: PagedKeys,
    lengths: Lengths,
    scoring: Scoring,
    value_scale: Tensor | None = None,
    grain: Grain = _GRAIN,
) -> Tensor:
    """Attention output of rows of one layer, to compare with the backend's: float32 [rows, heads · d].

    By the kernel of the statistics, so that what is compared is what they were computed by.
    """
    output = _attend([q], keys, lengths, scoring, grain, with_output=True)[1]
    return output if value_scale is None else output * value_scale


def _attend(
    q: Sequence[Tensor],
    keys: PagedKeys,
    lengths: Lengths,
    scoring: Scoring,
    grain: Grain,
    *,
    with_output: bool,
) -> tuple[AttentionStatistics, Tensor]:
    layout = keys.layout
    if not isinstance(layout, StridedLayout):
        raise UnsupportedLayoutError(
            f"kernels find keys by strides, got {layout}; gpu_layout gives such a layout"
        )
    rows, heads, d = q[0].shape
    padded = max(16, triton.next_power_of_2(d))
    tile = grain.tile(padded * layout.stored.itemsize)
    window = _NO_WINDOW if scoring.window is None else scoring.window
    splits, range_keys = grain.ranges(min(lengths.longest, window), tile)
    parts = q[0].new_empty(5, len(q), rows, heads, splits, dtype=torch.float32)
    outputs = q[0].new_empty((rows, heads, splits, d) if with_output else (0,), dtype=torch.float32)
    slopes = None if scoring.alibi_slopes is None else scoring.alibi_slopes.to(q[0].device, torch.float32)
    for layer, (own, cache) in enumerate(zip(q, keys.caches, strict=True)):
        k, v = layout.keys(cache), layout.values(cache)
        own = own if own.stride(2) == 1 else own.contiguous()  # noqa: PLW2901 - the same rows, closer together
        key_scale = None if keys.scales is None else keys.scales[layer]
        add_up[(rows * k.shape[1], splits)](
            own, k, v, keys.block_table, lengths.keys, key_scale, slopes, parts[:, layer], outputs,
            own.stride(0), own.stride(1), k.stride(0), k.stride(1), k.stride(2), k.stride(3),
            keys.block_table.stride(0), parts.stride(0), splits, range_keys, window,
            scoring.scale, scoring.softcap or 0.0,
            heads=heads, group=heads // k.shape[1], head_size=d, block_size=layout.block_size,
            recent_keys=RECENT_KEYS, padded_group=max(16, triton.next_power_of_2(heads // k.shape[1])),
            padded_size=padded, tile=tile, operand=_operand(own, k), has_key_scale=key_scale is not None,
            has_softcap=scoring.softcap is not None, has_slopes=slopes is not None, with_output=with_output,
            num_stages=2,
        )  # fmt: skip
    return _merged(parts, outputs, lengths.keys, scoring, window, d)


def _merged(
    parts: Tensor, outputs: Tensor, lengths: Tensor, scoring: Scoring, window: int, d: int
) -> tuple[AttentionStatistics, Tensor]:
    """parts: [5, layers, rows, heads, splits]; outputs: of one layer, or empty."""
    _, layers, rows, heads, splits = parts.shape
    count, with_output = layers * rows * heads, outputs.numel() > 0
    results = parts.new_empty(3, layers, rows, heads)
    merged = parts.new_empty(rows, heads * d if with_output else 0)
    sinks = None
    if scoring.sinks is not None:
        sinks = scoring.sinks.to(parts.device, torch.float32).reshape(-1, heads)
    merge[(count,)](
        parts, outputs, lengths, sinks, results, merged, splits, rows, count, window,
        heads if sinks is not None and len(sinks) > 1 else 0,
        heads=heads, head_size=d, padded_size=triton.next_power_of_2(d), lanes=32,
        has_sinks=sinks is not None, with_output=with_output, num_warps=1,
    )  # fmt: skip
    return AttentionStatistics(*results.unbind()), merged


def _operand(q: Tensor, k: Tensor) -> tl.dtype:
    """What queries and keys are multiplied as; products of 16-bit numbers are exact in float32, where sums are.

    fp8 is exact in either 16-bit type. The interpreter, on a CPU, knows products of float32 alone.
    """
    if q.device.type != "cpu" and (q.dtype == k.dtype or k.dtype in _FP8):
        return _OPERANDS.get(q.dtype, tl.float32)
    return tl.float32

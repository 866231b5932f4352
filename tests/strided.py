"""Shapes of keys and values in, caches that hold them as GPU backends of vLLM lay them out out.

What is written, is written through the views that vLLM's own backends take of a cache, never through ours.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from introspan.capture.attention.kv_layout import StridedLayout, gpu_layout

# By name: the class that has it, the axes of the cache as they are stored, one of [blocks, kv_heads, tokens, numbers]
# with keys and values behind each other, and of older ones with an axis of their own.
LAYOUTS = {
    "LBHNC": ("FlashInferImpl", "BHNC"),
    "LBNHC": ("FlashAttentionImpl", "BNHC"),
    "LHBNC": ("TritonAttentionImpl", "HBNC"),
    "BLNHC": ("FlashAttentionImpl", "BLNHC"),
    "before_blocks_NHD": ("FlashAttentionImpl", "2BNHC"),
    "before_blocks_HND": ("FlashAttentionImpl", "2BHNC"),
    "behind_blocks_NHD": ("TritonAttentionImpl", "B2NHC"),
    "behind_blocks_HND": ("FlashInferImpl", "B2HNC"),
}

DTYPES = {
    "float32": (torch.float32, "auto"),
    "float16": (torch.float16, "auto"),
    "bfloat16": (torch.bfloat16, "bfloat16"),
    "fp8_e4m3": (torch.float8_e4m3fn, "fp8"),
    "fp8_e5m2": (torch.float8_e5m2, "fp8_e5m2"),
}


@dataclass
class Strided:
    """A cache, block ids [rows, blocks], and what was written: k and v, float32 [rows, kv_heads, keys, d]."""

    cache: Tensor
    layout: StridedLayout
    table: Tensor
    k: Tensor
    v: Tensor


def strided(
    name: str, dtype: str, lengths: list[int], kv_heads: int, d: int, block: int, seed: int = 0
) -> Strided:
    """A cache with keys and values of as many rows; what no row has reached is NaN, so that reading it shows."""
    implementation, order = LAYOUTS[name]
    stored, cache_dtype = DTYPES[dtype]
    generator = torch.Generator().manual_seed(seed)
    rows, blocks = len(lengths), -(-max(lengths) // block)
    count = rows * blocks + 3  # of which some belong to nobody; and never two, which would be ambiguous
    cache = _empty(order, count, kv_heads, block, d, stored)
    table = torch.randperm(count, generator=generator)[: rows * blocks].view(rows, blocks).to(torch.int32)
    shape = (rows, blocks * block, kv_heads, d)
    k, v = (torch.randn(shape, generator=generator).to(stored) for _ in range(2))
    for row, length in enumerate(lengths):
        places = table[row].long()
        for written, half in zip((k, v), _as_vllm_does(cache, d), strict=True):
            whole = torch.full((blocks * block, kv_heads, d), torch.nan).to(stored)
            whole[:length] = written[row, :length]
            # Copied as bytes: torch writes no fp8 by index.
            half.view(_bits(stored))[places] = whole.view(blocks, block, kv_heads, d).view(_bits(stored))
    if stored.itemsize == 1:
        cache = cache.view(torch.uint8)
    layout = gpu_layout(implementation, cache, kv_heads, d, cache_dtype)
    return Strided(cache, layout, table, *(each.float().transpose(1, 2) for each in (k, v)))


def _empty(order: str, count: int, kv_heads: int, block: int, d: int, dtype: torch.dtype) -> Tensor:
    """A cache in logical order whose axes lie in memory in the given one, full of NaN."""
    sizes = {"B": count, "H": kv_heads, "N": block, "C": d if "2" in order else 2 * d, "2": 2, "L": 3}
    memory = torch.full([sizes[axis] for axis in order], torch.nan).to(dtype)
    if "L" in order:
        memory, order = memory.select(order.index("L"), 1), order.replace("L", "")
    logical = ("2BNHC" if order[0] == "2" else "B2NHC") if "2" in order else "BHNC"
    return memory.permute([order.index(axis) for axis in logical])


def _as_vllm_does(cache: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """Keys and values [blocks, tokens, kv_heads, d]: vLLM's backends since 0.26 for four axes, older ones for five."""
    if cache.dim() == 4:
        keys, values = cache.transpose(1, 2).split(d, dim=-1)
        return keys, values
    keys, values = cache.unbind(0 if cache.shape[0] == 2 else 1)
    return keys, values


def _bits(dtype: torch.dtype) -> torch.dtype:
    return {1: torch.uint8, 2: torch.int16, 4: torch.int32}[dtype.itemsize]

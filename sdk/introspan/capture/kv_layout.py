"""A paged key-value cache and block ids in, float32 keys and values out; only this file knows the packing.

vLLM's CPU cache of a layer is [blocks, kv_heads, block_size, 2 · head_size]; of each (block, head) the first
half holds keys and the second values. How a half is packed depends on the instruction set the backend chose:
`vec` and `vec16` store keys transposed and values plainly; `amx` (bfloat16) stores both in tiles of 16 × 2.
"""

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor


class UnsupportedLayoutError(ValueError):
    """The cache is packed in a way that was not verified; attention signals must stay off."""


class Packing(Enum):
    """How one (block, head) of keys and values lies in memory."""

    TRANSPOSED = "keys [d, block_size], values [block_size, d]"
    TILED = "keys [block_size/16, d/2, 16, 2], values [d/16, block_size/2, 16, 2]"


@dataclass(frozen=True, slots=True)
class KvLayout:
    """How to read the blocks of a cache."""

    packing: Packing
    block_size: int
    head_size: int

    def read_keys(self, cache: Tensor, blocks: Tensor, out: Tensor) -> None:
        """The first keys of some blocks, transposed. blocks: int [n]; out: float32 [n, kv_heads, d, keys].

        keys: up to block_size, or a multiple of 16.
        """
        half, keys = self._half(cache, 0), out.shape[3]
        if self.packing is Packing.TRANSPOSED:
            transposed = half.view(*half.shape[:2], self.head_size, self.block_size)
            _copy_blocks(transposed[..., :keys], blocks, out)
            return
        tiles = half.view(*half.shape[:2], -1, self.head_size // 2, 16, 2)[:, :, : keys // 16]
        target = out.view(*out.shape[:2], self.head_size // 2, 2, keys // 16, 16)
        target.copy_(tiles.index_select(0, blocks).permute(0, 1, 3, 5, 2, 4))

    def read_values(self, cache: Tensor, blocks: Tensor, out: Tensor) -> None:
        """Values of some blocks. blocks: int [n]; out: float32 [n, kv_heads, block_size, d]."""
        if self.packing is Packing.TRANSPOSED:
            _copy_blocks(self._half(cache, 1), blocks, out.flatten(2))
            return
        packed = self._half(cache, 1).index_select(0, blocks)
        tiles = packed.view(*out.shape[:2], self.head_size // 16, self.block_size // 2, 16, 2)
        target = out.view(*out.shape[:2], self.block_size // 2, 2, self.head_size // 16, 16)
        target.copy_(tiles.permute(0, 1, 3, 5, 2, 4))

    def _half(self, cache: Tensor, half: int) -> Tensor:
        return cache.view(*cache.shape[:2], 2, self.block_size * self.head_size)[:, :, half]


def _copy_blocks(half: Tensor, blocks: Tensor, out: Tensor) -> None:
    if half.dtype == out.dtype:
        torch.index_select(half, 0, blocks, out=out)
    else:
        out.copy_(half.index_select(0, blocks))


def cpu_layout(isa: str, cache: Tensor) -> KvLayout:
    """Layout of vLLM's CPU cache for the instruction set its attention backend chose (`layer.isa`).

    Raises UnsupportedLayoutError for what was not verified against the backend's own cache writer.
    """
    block_size, head_size = cache.shape[2], cache.shape[3] // 2
    if isa in {"vec", "vec16"} and cache.dtype in {torch.float32, torch.bfloat16, torch.float16}:
        return KvLayout(Packing.TRANSPOSED, block_size, head_size)
    if isa == "amx" and cache.dtype == torch.bfloat16 and block_size % 32 == 0 and head_size % 32 == 0:
        return KvLayout(Packing.TILED, block_size, head_size)
    raise UnsupportedLayoutError(
        f"kv cache layout isa={isa!r} dtype={cache.dtype} block_size={block_size} head_size={head_size} is "
        "not known; attention signals need isa vec, vec16 or amx with a float32 or bfloat16 cache"
    )

"""A paged key-value cache and block ids in, float32 keys and values out; only this file knows the packing.

vLLM's CPU cache of a layer is [blocks, kv_heads, block_size, 2 · head_size]; of each (block, head) the first
half holds keys and the second values. How a half is packed depends on the instruction set the backend chose:
`vec` and `vec16` store keys transposed and values plainly; `amx` (bfloat16) stores both in tiles of 16 × 2.

On GPUs a key is a row of numbers wherever its backend puts it, so that strides say all: `StridedLayout`.
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

    def kv_heads(self, cache: Tensor) -> int:
        """How many heads of keys a block of the cache holds."""
        return cache.shape[1]

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


class Split(Enum):
    """Where the keys of a GPU's cache end and its values begin."""

    INSIDE = "[blocks, kv_heads, block_size, head_size of keys, then of values]"
    BEFORE_BLOCKS = "[keys or values, blocks, block_size, kv_heads, head_size]"
    AFTER_BLOCKS = "[blocks, keys or values, block_size, kv_heads, head_size]"


@dataclass(frozen=True, slots=True)
class StridedLayout:
    """How to find keys and values in a cache whose axes may lie in memory in any order.

    stored: what the bytes of the cache are, where its tensor does not say: vLLM keeps fp8 as uint8.
    """

    split: Split
    block_size: int
    head_size: int
    stored: torch.dtype

    def kv_heads(self, cache: Tensor) -> int:
        """How many heads of keys a block of the cache holds."""
        return self.keys(cache).shape[1]

    def keys(self, cache: Tensor) -> Tensor:
        """The keys where they lie: a view [blocks, kv_heads, block_size, d] of the cache, with its strides."""
        return self._half(cache, 0)

    def values(self, cache: Tensor) -> Tensor:
        """The values where they lie: a view shaped like that of the keys."""
        return self._half(cache, 1)

    def read_keys(self, cache: Tensor, blocks: Tensor, out: Tensor) -> None:
        """The first keys of some blocks, transposed. blocks: int [n]; out: float32 [n, kv_heads, d, keys]."""
        found = self.keys(cache)[:, :, : out.shape[3]]
        out.copy_(found.index_select(0, blocks.to(found.device)).transpose(2, 3))

    def read_values(self, cache: Tensor, blocks: Tensor, out: Tensor) -> None:
        """Values of some blocks. blocks: int [n]; out: float32 [n, kv_heads, block_size, d]."""
        found = self.values(cache)
        out.copy_(found.index_select(0, blocks.to(found.device)))

    def _half(self, cache: Tensor, half: int) -> Tensor:
        if cache.dtype is not self.stored:
            cache = cache.view(self.stored)
        if self.split is Split.INSIDE:
            return cache.narrow(3, half * self.head_size, self.head_size)
        return cache.select(0 if self.split is Split.BEFORE_BLOCKS else 1, half).transpose(1, 2)


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


# Classes of vLLM whose caches were looked at, by what their methods do with them in the wheels of 0.20 to 0.33:
# FlashAttention has keys and values before the blocks in 0.20 to 0.22 and behind them in 0.23 to 0.25; Triton and
# FlashInfer behind them from 0.20 to 0.25; all three inside from 0.26 on. NHD and HND, and since 0.29 where layers are,
# differ in strides alone. FlashInfer's nvfp4 has twice the heads, Triton's scales of its own longer rows: both refused.
_STRIDED = frozenset({"FlashAttentionImpl", "TritonAttentionImpl", "FlashInferImpl"})

_PLAIN = frozenset({torch.float32, torch.bfloat16, torch.float16})
_FP8 = {"fp8": torch.float8_e4m3fn, "fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}


def gpu_layout(
    implementation: str, cache: Tensor, kv_heads: int, head_size: int, cache_dtype: str
) -> StridedLayout:
    """Layout of a GPU backend's cache, by the class name of its implementation and the cache's shape and dtype.

    kv_heads, head_size: of the layer; cache_dtype: vLLM's `kv_cache_dtype`. Raises UnsupportedLayoutError for what
    was not verified, and where a shape could be read in two ways.
    """
    stored = _stored(cache.dtype, cache_dtype)
    split = _split(tuple(cache.shape), kv_heads, head_size)
    if implementation not in _STRIDED or stored is None or split is None:
        raise UnsupportedLayoutError(
            f"kv cache layout of {implementation!r} with shape={tuple(cache.shape)} dtype={cache.dtype} "
            f"kv_cache_dtype={cache_dtype!r} is not known for kv_heads={kv_heads} head_size={head_size}; attention "
            f"signals need one of {', '.join(sorted(_STRIDED))} and kv_cache_dtype auto, fp8, fp8_e4m3 or fp8_e5m2"
        )
    return StridedLayout(split, cache.shape[2], head_size, stored)


def _stored(dtype: torch.dtype, cache_dtype: str) -> torch.dtype | None:
    """What a cache's bytes are. Of one byte each only what vLLM names fp8: others hold scales beside the keys."""
    if cache_dtype in _FP8:
        wanted = _FP8[cache_dtype]
        # On AMD's GPUs the same names stand for types with another bias.
        return wanted if dtype in {torch.uint8, wanted} and torch.version.hip is None else None
    return dtype if dtype in _PLAIN else None


def _split(shape: tuple[int, ...], kv_heads: int, head_size: int) -> Split | None:
    if len(shape) == 4 and (shape[1], shape[3]) == (kv_heads, 2 * head_size):
        return Split.INSIDE
    if len(shape) == 5 and shape[3:] == (kv_heads, head_size) and (shape[0] == 2) != (shape[1] == 2):
        return Split.BEFORE_BLOCKS if shape[0] == 2 else Split.AFTER_BLOCKS
    return None

"""Lengths of sequences in, a KV cache that vLLM's own operator filled out; and every form of attention there is."""

from dataclasses import dataclass

import torch
from torch import Tensor
from vllm import _custom_ops as ops

from introspan.capture.attention.statistics import Scoring

BLOCK, KV_HEADS, HEADS = 32, 2, 6
FORMS = {
    "plain": Scoring(0.2),
    "window": Scoring(0.2, window=50),
    "window_of_two_blocks": Scoring(0.2, window=64),
    "softcap": Scoring(0.5, softcap=4.0),
    "alibi": Scoring(0.2, alibi_slopes=torch.linspace(0.01, 0.3, HEADS)),
    "sinks": Scoring(0.2, sinks=torch.linspace(-2.0, 4.0, HEADS)),
    "everything": Scoring(
        0.3,
        window=70,
        softcap=8.0,
        alibi_slopes=torch.linspace(0.0, 0.05, HEADS),
        sinks=torch.zeros(HEADS),
    ),
}


@dataclass
class Paged:
    """A cache that vLLM's own op filled, and what it was filled with."""

    cache: Tensor
    table: Tensor
    k: Tensor
    v: Tensor


def paged(
    lengths: list[int], head_size: int, dtype: torch.dtype, isa: str, block: int = BLOCK, seed: int = 0
) -> Paged:
    """A cache of as many rows, each with as many random keys and values; blocks lie in any order."""
    generator = torch.Generator().manual_seed(seed)
    rows, blocks = len(lengths), -(-max(lengths) // block)
    shape = (rows, blocks * block, KV_HEADS, head_size)
    k, v = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    table = torch.randperm(rows * blocks, generator=generator).view(rows, blocks).to(torch.int32)
    cache = torch.zeros(rows * blocks, KV_HEADS, block, 2 * head_size, dtype=dtype)
    slots = (table.long()[:, :, None] * block + torch.arange(block)).flatten()
    key_area, value_area = cache.view(-1, KV_HEADS, 2 * block, head_size).chunk(2, dim=2)
    ops.cpu_attn_reshape_and_cache(k.flatten(0, 1), v.flatten(0, 1), key_area, value_area, slots, isa)
    return Paged(cache, table, k.transpose(1, 2).float(), v.transpose(1, 2).float())

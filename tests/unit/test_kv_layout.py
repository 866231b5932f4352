"""Caches of GPU backends: keys and values are found where vLLM puts them, and what was not verified is refused."""

import pytest
import torch
from vllm.v1.kv_cache_interface import (
    FullAttentionSpec,
    KVCacheTensor,
    compute_layout_strides,
    create_kv_cache_views,
)
from vllm.v1.kv_cache_layout import KVCacheLayout

from introspan.capture.attention.kv_layout import UnsupportedLayoutError, gpu_layout
from introspan.capture.attention.statistics import gather_blocks
from tests.strided import DTYPES, LAYOUTS, strided

BLOCKS, BLOCK, KV_HEADS, D = 5, 16, 3, 96


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LAYOUTS)
def test_keys_and_values_come_back_from_every_layout_bit_for_bit(name, dtype):
    lengths = torch.tensor([1, 33, 64])
    made = strided(name, dtype, lengths.tolist(), KV_HEADS, D, BLOCK)
    k, v = gather_blocks(made.cache, made.table, lengths, made.layout)
    for row, length in enumerate(lengths.tolist()):
        assert torch.equal(k[row, :, :length], made.k[row, :, :length])
        assert torch.equal(v[row, :, :length], made.v[row, :, :length])


@pytest.mark.parametrize("layout", KVCacheLayout, ids=lambda layout: layout.name)
@pytest.mark.parametrize("implementation", ["FlashAttentionImpl", "TritonAttentionImpl", "FlashInferImpl"])
def test_a_cache_that_vllm_itself_allocates_is_read_in_each_of_its_layouts(implementation, layout):
    layers = 2
    spec = FullAttentionSpec(
        block_size=BLOCK, num_kv_heads=KV_HEADS, head_size=D, head_size_v=D, dtype=torch.bfloat16
    )
    strides = compute_layout_strides(spec, BLOCKS, layers, layout)
    size = layers * BLOCKS * spec.page_size_bytes
    placed = KVCacheTensor(size=size, layers=["0", "1"], layer_stride=strides[0], block_stride=strides[1])
    views = create_kv_cache_views(torch.zeros(size, dtype=torch.int8), spec, BLOCKS, layout, placed)
    keys = torch.arange(layers * BLOCKS * BLOCK * KV_HEADS * D).view(layers, BLOCKS, BLOCK, KV_HEADS, D) % 251
    for cache, k in zip(views, keys, strict=True):
        # As FlashAttention, Triton and FlashInfer of 0.32 take the cache apart before they write to it.
        key_cache, value_cache = cache.transpose(1, 2).split(D, dim=-1)
        key_cache.copy_(k)
        value_cache.copy_(-k)
    for cache, k in zip(views, keys.to(torch.bfloat16), strict=True):
        found = gpu_layout(implementation, cache, KV_HEADS, D, "auto")
        assert found.block_size == BLOCK
        assert torch.equal(found.keys(cache), k.transpose(1, 2))
        assert torch.equal(found.values(cache), -k.transpose(1, 2))
        assert found.keys(cache).untyped_storage().data_ptr() == cache.untyped_storage().data_ptr()


REFUSED = {
    "of a backend that was not looked at": ("FlexAttentionImpl", (2, 5, 16, 3, 96), torch.float16, "auto"),
    "of two blocks, which could be read in two ways": (
        "FlashAttentionImpl",
        (2, 2, 16, 3, 96),
        torch.float16,
        "auto",
    ),
    "with scales beside the keys": (
        "TritonAttentionImpl",
        (5, 3, 16, 200),
        torch.int8,
        "int8_per_token_head",
    ),
    "of bytes that are not named fp8": ("FlashInferImpl", (5, 3, 16, 192), torch.uint8, "nvfp4"),
    "of other heads than the layer's": ("FlashAttentionImpl", (5, 4, 16, 192), torch.float16, "auto"),
    "with heads before tokens": ("FlashInferImpl", (5, 2, 3, 16, 96), torch.float16, "auto"),
    "of latent keys": ("FlashAttentionImpl", (5, 16, 576), torch.bfloat16, "auto"),
}


@pytest.mark.parametrize(("implementation", "shape", "dtype", "cache_dtype"), REFUSED.values(), ids=REFUSED)
def test_a_cache_is_refused_by_name(implementation, shape, dtype, cache_dtype):
    with pytest.raises(
        UnsupportedLayoutError, match=f"{implementation!r} with shape=.*kv_heads=3 head_size=96"
    ):
        gpu_layout(implementation, torch.zeros(shape, dtype=dtype), 3, 96, cache_dtype)

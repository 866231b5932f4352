"""Keys, values and outputs against vLLM's own cache writer and kernel."""

import pytest
import torch
from torch import Tensor
from vllm import _custom_ops as ops

from introspan.capture.attention.kv_layout import UnsupportedLayoutError, cpu_layout
from introspan.capture.attention.statistics import Scoring, gather_blocks, recompute_output
from tests.paged import FORMS, HEADS, KV_HEADS, Paged, paged

PACKINGS = [
    (isa, dtype, head_size)
    for isa, dtype, head_sizes in [
        ("vec", torch.float32, (32, 64, 128)),
        ("vec", torch.bfloat16, (32, 64, 128)),
        ("vec", torch.float16, (64,)),
        ("vec16", torch.float32, (80, 112)),
        ("vec16", torch.bfloat16, (80, 112)),
        ("amx", torch.bfloat16, (32, 64, 128)),
    ]
    for head_size in head_sizes
]


@pytest.mark.parametrize(("isa", "dtype", "head_size"), PACKINGS)
def test_keys_and_values_come_back_from_vllms_own_cache_writer_bit_for_bit(isa, dtype, head_size):
    lengths = torch.tensor([100, 128])
    made = paged(lengths.tolist(), head_size, dtype, isa, block=64)
    k, v = gather_blocks(made.cache, made.table, lengths, cpu_layout(isa, made.cache))
    assert torch.equal(k, made.k)
    assert torch.equal(v, made.v)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    ("isa", "dtype"), [("vec", torch.float32), ("vec", torch.bfloat16), ("amx", torch.bfloat16)]
)
def test_recomputed_output_is_that_of_vllms_kernel(form, isa, dtype):
    if isa == "amx" and not torch.cpu._is_amx_tile_supported():
        isa = "vec"
    lengths = torch.tensor([1, 33, 64, 200])
    made = paged(lengths.tolist(), 64, dtype, isa)
    q = torch.randn(4, HEADS, 64, generator=torch.Generator().manual_seed(5)).to(dtype)
    expected = _kernel(q, made, lengths, form, isa)
    found = recompute_output(q, made.k, made.v, lengths, form)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found, expected.float().flatten(1), atol=tolerance, rtol=0)


def _kernel(q: Tensor, made: Paged, lengths: Tensor, form: Scoring, isa: str) -> Tensor:
    rows, heads, d = q.shape
    window = -1 if form.window is None else form.window
    start = torch.arange(rows + 1, dtype=torch.int32)
    seq_lens = lengths.to(torch.int32)
    metadata = ops.cpu_attn_get_scheduler_metadata(
        num_reqs=rows,
        num_heads=heads,
        num_kv_heads=KV_HEADS,
        head_dim=d,
        seq_lens=seq_lens,
        dtype=q.dtype,
        query_start_loc=start,
        causal=True,
        sliding_window_size=window,
        isa=isa,
        enable_kv_split=False,
    )
    key_area, value_area = made.cache.view(len(made.cache), KV_HEADS, -1, d).chunk(2, dim=2)
    output = torch.empty_like(q)
    ops.cpu_attention_with_kv_cache(
        query=q,
        key_cache=key_area,
        value_cache=value_area,
        output=output,
        query_start_loc=start,
        seq_lens=seq_lens,
        scale=form.scale,
        causal=True,
        alibi_slopes=form.alibi_slopes,
        sliding_window=window,
        block_table=made.table,
        softcap=form.softcap or 0.0,
        scheduler_metadata=metadata,
        s_aux=None if form.sinks is None else form.sinks.float(),
    )
    return output


@pytest.mark.parametrize(
    ("isa", "dtype", "shape"),
    [
        ("neon", torch.float32, (4, 2, 32, 128)),
        ("amx", torch.float32, (4, 2, 32, 128)),
        ("vec", torch.float8_e4m3fn, (4, 2, 32, 128)),
        ("amx", torch.bfloat16, (4, 2, 16, 128)),
    ],
)
def test_unverified_layouts_are_refused_by_name(isa, dtype, shape):
    with pytest.raises(UnsupportedLayoutError, match=f"isa='{isa}'"):
        cpu_layout(isa, torch.empty(shape, dtype=dtype))

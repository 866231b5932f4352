"""Attention statistics against weights written out in float64, and against vLLM's own cache and kernel."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from vllm import _custom_ops as ops

from introspan.capture.attention import (
    AttentionStatistics,
    PagedKeys,
    Scoring,
    gather_blocks,
    paged_statistics,
    recompute_output,
)
from introspan.capture.kv_layout import UnsupportedLayoutError, cpu_layout

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


@dataclass
class Paged:
    """A cache that vLLM's own op filled, and what it was filled with."""

    cache: Tensor
    table: Tensor
    k: Tensor
    v: Tensor


def _paged(
    lengths: list[int], head_size: int, dtype: torch.dtype, isa: str, block: int = BLOCK, seed: int = 0
) -> Paged:
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


def _scores(q: Tensor, k: Tensor, n: int, form: Scoring) -> Tensor:
    """Scores of one row and head in float64, before any mask. q: [d]; k: [keys, d]."""
    s = form.scale * (k[:n].double() @ q.double())
    if form.softcap is not None:
        s = form.softcap * torch.tanh(s / form.softcap)
    return s


def naive(q: Tensor, k: Tensor, lengths: Tensor, form: Scoring) -> tuple[Tensor, Tensor, Tensor]:
    """Entropy, sink and recent mass from materialised weights, one row and one head at a time."""
    rows, heads = q.shape[:2]
    result = torch.zeros(3, rows, heads, dtype=torch.float64)
    for row in range(rows):
        n = int(lengths[row])
        for head in range(heads):
            s = _scores(q[row, head], k[row, head * k.shape[1] // heads], n, form)
            if form.alibi_slopes is not None:
                s = s + form.alibi_slopes[head].double() * (torch.arange(n) - (n - 1))
            if form.window is not None and form.window < n:
                s[: n - form.window] = -math.inf
            if form.sinks is not None:
                s = torch.cat([s, form.sinks[head].double().view(1)])
            p = s.softmax(0)
            result[0, row, head] = -sum(x * math.log(x) for x in p.tolist() if x > 0)
            inside = form.window is None or n <= form.window
            result[1, row, head] = p[0] if inside else math.nan
            result[2, row, head] = p[:n][-64:].sum()
    return result[0], result[1], result[2]


def _measured(q: Tensor, paged: Paged, lengths: Tensor, form: Scoring, **how: int) -> AttentionStatistics:
    """Statistics [1, rows, heads] of a row a request. q: [rows, heads, d]."""
    keys = PagedKeys([paged.cache], paged.table, cpu_layout("vec", paged.cache))
    return paged_statistics([q], keys, np.arange(len(q)), lengths.numpy(), form, **how)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_statistics_are_those_of_materialised_weights(form):
    lengths = torch.tensor([1, 33, 64, 200])
    paged = _paged(lengths.tolist(), 32, torch.float32, "vec")
    q = torch.randn(4, HEADS, 32, generator=torch.Generator().manual_seed(1)) * 2
    expected = naive(q, paged.k, lengths, form)
    found = _measured(q, paged, lengths, form)
    for name, value in zip(("entropy", "sink_mass", "recent_mass"), expected, strict=True):
        of_rows = getattr(found, name)[0].double()
        torch.testing.assert_close(of_rows, value, atol=2e-5, rtol=0, equal_nan=True, msg=name)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_chunk_size_does_not_matter(form):
    lengths = torch.tensor([190, 5])
    paged = _paged(lengths.tolist(), 32, torch.float32, "vec")
    q = torch.randn(2, HEADS, 32, generator=torch.Generator().manual_seed(2))
    whole = _measured(q, paged, lengths, form, blocks_at_once=1000)
    for blocks in (1, 2, 5):
        part = _measured(q, paged, lengths, form, blocks_at_once=blocks)
        torch.testing.assert_close(part.entropy, whole.entropy, atol=1e-5, rtol=0)
        torch.testing.assert_close(part.recent_mass, whole.recent_mass, atol=1e-6, rtol=0)
        torch.testing.assert_close(part.sink_mass, whole.sink_mass, atol=1e-6, rtol=0, equal_nan=True)


def test_layers_are_measured_together_as_one_by_one():
    lengths = torch.tensor([100, 40])
    first = _paged(lengths.tolist(), 32, torch.float32, "vec")
    layers = [first] + [replace(first, cache=torch.randn_like(first.cache)) for _ in range(2)]
    q = torch.randn(3, 2, HEADS, 32, generator=torch.Generator().manual_seed(3))
    sinks = torch.randn(3, 1, HEADS, generator=torch.Generator().manual_seed(4))
    keys = PagedKeys([layer.cache for layer in layers], first.table, cpu_layout("vec", first.cache))
    together = paged_statistics(q, keys, np.arange(2), lengths.numpy(), Scoring(0.2, sinks=sinks))
    for i, layer in enumerate(layers):
        alone = _measured(q[i], layer, lengths, Scoring(0.2, sinks=sinks[i, 0]))
        torch.testing.assert_close(alone.entropy[0], together.entropy[i])


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_rows_of_a_request_are_measured_together_as_one_by_one(form):
    paged = _paged([200, 40, 130], 32, torch.float32, "vec")
    request = torch.tensor([2, 0, 1, 2, 0, 2])
    lengths = torch.tensor([64, 199, 40, 65, 200, 130])  # before, at and after where a block or window ends
    q = torch.randn(6, HEADS, 32, generator=torch.Generator().manual_seed(6))
    of_rows = Paged(paged.cache, paged.table[request], paged.k, paged.v)
    alone = _measured(q, of_rows, lengths, form)
    # An older row's table lacks the blocks that were added since.
    of_rows.table[0, 2:] = of_rows.table[1, 6:] = 0
    keys = PagedKeys([paged.cache], of_rows.table, cpu_layout("vec", paged.cache))
    together = paged_statistics([q], keys, request.numpy(), lengths.numpy(), form)
    for name in ("entropy", "sink_mass", "recent_mass"):
        found, expected = getattr(together, name), getattr(alone, name)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0, equal_nan=True, msg=name)


@pytest.mark.parametrize(("isa", "dtype", "head_size"), PACKINGS)
def test_keys_and_values_come_back_from_vllms_own_cache_writer_bit_for_bit(isa, dtype, head_size):
    lengths = torch.tensor([100, 128])
    paged = _paged(lengths.tolist(), head_size, dtype, isa, block=64)
    k, v = gather_blocks(paged.cache, paged.table, lengths, cpu_layout(isa, paged.cache))
    assert torch.equal(k, paged.k)
    assert torch.equal(v, paged.v)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    ("isa", "dtype"), [("vec", torch.float32), ("vec", torch.bfloat16), ("amx", torch.bfloat16)]
)
def test_recomputed_output_is_that_of_vllms_kernel(form, isa, dtype):
    if isa == "amx" and not torch.cpu._is_amx_tile_supported():
        isa = "vec"
    lengths = torch.tensor([1, 33, 64, 200])
    paged = _paged(lengths.tolist(), 64, dtype, isa)
    q = torch.randn(4, HEADS, 64, generator=torch.Generator().manual_seed(5)).to(dtype)
    expected = _kernel(q, paged, lengths, form, isa)
    found = recompute_output(q, paged.k, paged.v, lengths, form)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found, expected.float().flatten(1), atol=tolerance, rtol=0)


def _kernel(q: Tensor, paged: Paged, lengths: Tensor, form: Scoring, isa: str) -> Tensor:
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
    key_area, value_area = paged.cache.view(len(paged.cache), KV_HEADS, -1, d).chunk(2, dim=2)
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
        block_table=paged.table,
        softcap=form.softcap or 0.0,
        scheduler_metadata=metadata,
        s_aux=None if form.sinks is None else form.sinks.float(),
    )
    return output


def test_blocks_before_the_window_are_never_read():
    lengths = torch.tensor([200, 40])
    paged = _paged(lengths.tolist(), 32, torch.float32, "vec")
    form = Scoring(0.2, window=50)
    q = torch.randn(2, HEADS, 32)
    before = _measured(q, paged, lengths, form)
    paged.cache[paged.table[0, :4].long()] = math.nan  # keys 0–127; the window begins at 150
    after = _measured(q, paged, lengths, form)
    torch.testing.assert_close(after.entropy, before.entropy, rtol=0, atol=0)


def test_non_finite_keys_spoil_their_own_row_and_head_only():
    lengths = torch.tensor([40, 40])
    paged = _paged([40, 40], 32, torch.float32, "vec")
    paged.cache[paged.table[0, 0], 1, 0, 3] = math.nan  # transposed: dimension 0 of key 3
    found = _measured(torch.randn(2, HEADS, 32), paged, lengths, Scoring(0.2))
    spoilt = torch.zeros(1, 2, HEADS, dtype=torch.bool)
    spoilt[0, 0, HEADS // 2 :] = True
    assert torch.equal(found.entropy.isnan(), spoilt)
    assert torch.equal(found.recent_mass.isnan(), spoilt)


def test_a_single_key_has_no_entropy_to_speak_of_and_all_the_mass():
    paged = _paged([1], 32, torch.float32, "vec")
    found = _measured(torch.randn(1, HEADS, 32), paged, torch.tensor([1]), Scoring(1.0))
    assert found.entropy.max() < 1e-30
    assert found.sink_mass.tolist() == [[[1.0] * HEADS]]
    assert found.recent_mass.tolist() == [[[1.0] * HEADS]]


def test_keys_that_no_row_has_reached_do_not_matter():
    lengths = torch.tensor([40, 33])
    paged = _paged([40, 40], 32, torch.float32, "vec")
    q = torch.randn(2, HEADS, 32)
    before = _measured(q, paged, lengths, Scoring(0.2))
    keys = paged.cache.view(len(paged.cache), KV_HEADS, 2, 32, BLOCK)[:, :, 0]
    keys[paged.table[:, 1].long(), :, :, 8:] = math.nan  # keys 40–63, which belonged to another request
    keys[paged.table[1, 1].long(), :, :, 1:8] = math.nan
    after = _measured(q, paged, lengths, Scoring(0.2))
    torch.testing.assert_close(after.entropy, before.entropy, rtol=0, atol=0)


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


class _LargestTensor(TorchDispatchMode):
    """Bytes of the largest tensor that any operation made, views of what is there already not counted."""

    def __init__(self, given: Tensor) -> None:
        super().__init__()
        self._given = given.untyped_storage().data_ptr()
        self.byte_count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.untyped_storage().data_ptr() != self._given:
            self.byte_count = max(self.byte_count, result.untyped_storage().nbytes())
        return result


def test_memory_does_not_grow_with_the_number_of_keys():
    largest = []
    for n in (1_000, 8_000):
        cache = torch.randn(-(-n // 128), KV_HEADS, 128, 64)
        table = torch.arange(len(cache), dtype=torch.int32).view(1, -1)
        keys = PagedKeys([cache], table, cpu_layout("vec", cache))
        with _LargestTensor(cache) as seen:
            paged_statistics(
                torch.randn(1, 1, HEADS, 32),
                keys,
                np.array([0]),
                np.array([n]),
                Scoring(0.2),
                blocks_at_once=4,
            )
        largest.append(seen.byte_count)
    assert largest == [4 * KV_HEADS * 128 * 32 * 4] * 2

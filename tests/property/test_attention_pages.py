"""Attention mathematics over every shape, packing and batch of rows that hypothesis finds."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from introspan.capture.attention.kv_layout import KvLayout, Packing
from introspan.capture.attention.statistics import PagedKeys, Scoring, paged_statistics

EXAMPLES = settings(max_examples=100, deadline=None)
SEEDS = st.integers(0, 2**31)
OPTIONAL_WINDOW = st.one_of(st.none(), st.integers(1, 150))
OPTIONAL_SOFTCAP = st.one_of(st.none(), st.floats(0.5, 50.0))


def _random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _weights(q, k, n, form):
    """Weights [heads, n] of one row in float64, a query head after another. q: [heads, d]; k: [kv_heads, keys, d]."""
    k = k[:, :n].double().repeat_interleave(len(q) // len(k), dim=0)
    s = form.scale * torch.einsum("hd,hnd->hn", q.double(), k)
    if form.softcap is not None:
        s = form.softcap * torch.tanh(s / form.softcap)
    if form.alibi_slopes is not None:
        s = s + form.alibi_slopes.double()[:, None] * torch.arange(n)
    if form.window is not None:
        s[:, : max(0, n - form.window)] = -math.inf
    return s.softmax(dim=-1)


@EXAMPLES
@given(
    seed=SEEDS,
    requests=st.lists(st.lists(st.integers(1, 170), min_size=1, max_size=3), min_size=1, max_size=3),
    layers=st.integers(1, 2),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 4),
    head_size=st.sampled_from([2, 16, 34]),
    magnitude=st.sampled_from([1e-6, 1e-2, 1.0, 6.0]),
    window=OPTIONAL_WINDOW,
    softcap=OPTIONAL_SOFTCAP,
    alibi=st.booleans(),
    block_size=st.sampled_from([1, 4, 16, 48, 200]),
    packing=st.sampled_from(Packing),
    at_once=st.integers(1, 40),
)
def test_attention_is_that_of_materialised_weights(
    seed,
    requests,
    layers,
    kv_heads,
    group,
    head_size,
    magnitude,
    window,
    softcap,
    alibi,
    block_size,
    packing,
    at_once,
):
    block_size = 16 * block_size if packing is Packing.TILED else block_size
    blocks = -(-max(map(max, requests)) // block_size)
    order = torch.randperm(len(requests) * blocks, generator=torch.Generator().manual_seed(seed))
    table = order.view(len(requests), blocks).to(torch.int32)
    shape = (table.numel(), kv_heads, block_size, 2 * head_size)
    caches = [_random(seed + layer, *shape) * magnitude for layer in range(layers)]
    layout = KvLayout(packing, block_size, head_size)
    heads, rows = kv_heads * group, [(at, n) for at, lengths in enumerate(requests) for n in lengths]
    q = _random(seed, layers, len(rows), heads, head_size) * magnitude
    slopes = torch.linspace(0.0, 0.2, heads) if alibi else None
    form = Scoring(head_size**-0.5, window=window, softcap=softcap, alibi_slopes=slopes)
    request, lengths = np.array(rows).T
    keys = PagedKeys(caches, table[torch.from_numpy(request)], layout)
    found = paged_statistics(q, keys, request, lengths, form, blocks_at_once=at_once)
    for layer, cache in enumerate(caches):
        k = torch.empty(table.numel(), kv_heads, head_size, block_size)
        layout.read_keys(cache, table.flatten(), k)
        k = k.view(len(requests), blocks, *k.shape[1:]).permute(0, 2, 1, 4, 3).flatten(2, 3)
        for row, (at, n) in enumerate(rows):
            p = _weights(q[layer, row], k[at], n, form)
            expected = (torch.special.entr(p).sum(dim=-1), p[:, 0], p[:, -64:].sum(dim=-1))
            entropy, sink_mass, recent_mass = (
                value[layer, row].double() for value in (found.entropy, found.sink_mass, found.recent_mass)
            )
            torch.testing.assert_close(entropy, expected[0], atol=2e-4, rtol=0)
            torch.testing.assert_close(recent_mass, expected[2], atol=5e-5, rtol=0)
            if window is None or n <= window:
                torch.testing.assert_close(sink_mass, expected[1], atol=5e-5, rtol=0)
            else:
                assert sink_mass.isnan().all()

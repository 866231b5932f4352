"""Signal mathematics over every shape, size and oddity that hypothesis finds."""

import math
from itertools import pairwise

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from introspan.capture.attention import PagedKeys, Scoring, paged_statistics, statistics
from introspan.capture.kv_layout import KvLayout, Packing
from introspan.capture.output import output_statistics
from introspan.capture.repetition import longest_period_tail
from introspan.capture.residual import direction, layer_statistics, step_statistics
from introspan.capture.sampler import SamplingParameters, pit

EXAMPLES = settings(max_examples=60, deadline=None)
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
    lengths=st.lists(st.integers(1, 170), min_size=1, max_size=4),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 4),
    head_size=st.sampled_from([1, 16, 33]),
    magnitude=st.sampled_from([1e-6, 1e-2, 1.0, 6.0]),
    window=OPTIONAL_WINDOW,
    softcap=OPTIONAL_SOFTCAP,
    alibi=st.booleans(),
    chunk=st.integers(1, 200),
)
def test_attention_is_that_of_materialised_weights(
    seed, lengths, kv_heads, group, head_size, magnitude, window, softcap, alibi, chunk
):
    heads = kv_heads * group
    q = _random(seed, len(lengths), heads, head_size) * magnitude
    k = _random(seed + 1, len(lengths), kv_heads, max(lengths), head_size) * magnitude
    slopes = torch.linspace(0.0, 0.2, heads) if alibi else None
    form = Scoring(head_size**-0.5, window=window, softcap=softcap, alibi_slopes=slopes)
    found = statistics(q, k, torch.tensor(lengths), form, chunk_keys=chunk)
    for row, n in enumerate(lengths):
        p = _weights(q[row], k[row], n, form)
        entropy = torch.special.entr(p).sum(dim=-1)
        torch.testing.assert_close(found.entropy[row].double(), entropy, atol=2e-4, rtol=0)
        torch.testing.assert_close(found.recent_mass[row].double(), p[:, -64:].sum(dim=-1), atol=5e-5, rtol=0)
        if window is None or n <= window:
            torch.testing.assert_close(found.sink_mass[row].double(), p[:, 0], atol=5e-5, rtol=0)
        else:
            assert found.sink_mass[row].isnan().all()


@EXAMPLES
@given(
    seed=SEEDS,
    lengths=st.lists(st.integers(1, 100), min_size=1, max_size=3),
    layers=st.integers(1, 3),
    block_size=st.sampled_from([1, 4, 16]),
    window=OPTIONAL_WINDOW,
    at_once=st.integers(1, 40),
    packing=st.sampled_from(Packing),
)
def test_pages_are_measured_as_the_keys_they_hold(
    seed, lengths, layers, block_size, window, at_once, packing
):
    d, kv_heads, heads = 16, 2, 4
    block_size = 16 * block_size if packing is Packing.TILED else block_size
    blocks = -(-max(lengths) // block_size)
    table = torch.randperm(len(lengths) * blocks, generator=torch.Generator().manual_seed(seed))
    table = table.view(len(lengths), blocks).to(torch.int32)
    caches = [_random(seed + i, table.numel(), kv_heads, block_size, 2 * d) for i in range(layers)]
    layout = KvLayout(packing, block_size, d)
    q = _random(seed, layers, len(lengths), heads, d)
    form = Scoring(0.25, window=window)
    rows = torch.tensor(lengths)
    found = paged_statistics(q, PagedKeys(caches, table, layout), rows, form, blocks_at_once=at_once)
    for layer, cache in enumerate(caches):
        k = torch.empty(table.numel(), kv_heads, d, block_size)
        layout.read_keys(cache, table.flatten(), k)
        k = k.view(len(lengths), blocks, kv_heads, d, block_size).permute(0, 2, 1, 4, 3).flatten(2, 3)
        expected = statistics(q[layer], k, rows, form)
        torch.testing.assert_close(found.entropy[layer], expected.entropy, atol=1e-5, rtol=0)
        torch.testing.assert_close(found.recent_mass[layer], expected.recent_mass, atol=1e-5, rtol=0)
        torch.testing.assert_close(
            found.sink_mass[layer], expected.sink_mass, atol=1e-5, rtol=0, equal_nan=True
        )


@EXAMPLES
@given(
    seed=SEEDS,
    d=st.integers(2, 300),
    exponent=st.integers(-36, 36),
    after_exponent=st.integers(-3, 3),
    bad=st.sampled_from([None, math.nan, math.inf, -math.inf]),
)
def test_layers_are_measured_alike_at_every_size(seed, d, exponent, after_exponent, bad):
    h = _random(seed, 2, d) * 10.0**exponent
    after = _random(seed + 1, 2, d) * 10.0 ** min(36, exponent + after_exponent)
    if bad is not None:
        h[1, seed % d] = bad
    found = layer_statistics(h, after)
    rows = [0] if bad is not None else [0, 1]
    for row in rows:
        at, then = h[row].double().numpy(), after[row].double().numpy()
        size = np.linalg.norm(at)
        cosine = at @ then / (size * np.linalg.norm(then))
        expected = {
            "log_rms": math.log(size / math.sqrt(d)),
            "log_peak": math.log(np.abs(at).max() * math.sqrt(d) / size),
            "turn": math.log10(max(1 - cosine, 1e-14)),
            "update_ratio": np.linalg.norm(then - at) / size,
        }
        for name, value in expected.items():
            # 1 − cos of nearly parallel streams is only as exact as their float32 directions.
            slack = 1e-4 if name != "turn" or 1 - cosine > 1e-6 else 0.5
            assert math.isclose(float(getattr(found, name)[row]), value, rel_tol=1e-5, abs_tol=slack), name
    assert found.nonfinite.tolist() == [0, 0 if bad is None else 1]
    if bad is not None:
        assert all(
            getattr(found, name)[1].isnan() for name in ("log_rms", "log_peak", "turn", "update_ratio")
        )


@EXAMPLES
@given(seed=SEEDS, d=st.integers(2, 200), exponents=st.tuples(*[st.integers(-30, 30)] * 3))
def test_steps_do_not_depend_on_the_size_of_the_stream(seed, d, exponents):
    burst = [_random(seed + i, 1, d) * 10.0**exponent for i, exponent in enumerate(exponents)]
    found = step_statistics(*(direction(h).unit for h in burst))
    unit = [h.double().numpy()[0] for h in burst]
    unit = [h / np.linalg.norm(h) for h in unit]
    b, a = (later - earlier for earlier, later in pairwise(unit))
    assert math.isclose(found.velocity.item(), np.linalg.norm(a), abs_tol=1e-5)
    assert 0 <= found.velocity.item() <= 2 + 1e-6
    if min(np.linalg.norm(a), np.linalg.norm(b)) > 1e-3:
        cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
        assert math.isclose(math.cos(found.curvature.item()), cosine, abs_tol=1e-3)


@EXAMPLES
@given(
    seed=SEEDS,
    size=st.integers(2, 400),
    magnitude=st.sampled_from([0.0, 1e-3, 1.0, 20.0, 1e4]),
    offset=st.sampled_from([0.0, -1e4, 1e4]),
    masked=st.integers(0, 3),
)
def test_output_is_that_of_the_softmax(seed, size, magnitude, offset, masked):
    logits = _random(seed, 1, size) * magnitude + offset
    masked = min(masked, size - 2)
    logits[0, :masked] = -math.inf
    found = output_statistics(logits, torch.tensor([size - 1]))
    p = logits[0].double().softmax(dim=0)
    two = p.topk(2).values
    assert math.isclose(found.entropy.item(), torch.special.entr(p).sum().item(), abs_tol=1e-4)
    assert math.isclose(found.margin.item(), (two[0] - two[1]).item(), abs_tol=1e-5)
    expected = logits[0].double().log_softmax(dim=0)[-1].item()
    assert math.isclose(found.logprob.item(), expected, abs_tol=1e-4, rel_tol=1e-6)
    assert found.nonfinite.item() == masked


def _sampled(x, top_k, top_p, min_p):
    """q [V] of tempered logits by sorting. Settings that hit a token's mass to the last digit are passed over."""
    q = np.exp(x - x.max())
    assume(np.abs(q - min_p).min() > 1e-6)
    q[q < min_p] = 0.0
    if 0 < top_k < len(q):
        q[q < np.sort(q)[-top_k]] = 0.0
    q /= q.sum()
    order = np.argsort(q, kind="stable")
    gone = np.cumsum(q[order])
    if top_p < 1:
        assume(np.abs(gone - (1 - top_p)).min() > 1e-5)
        q[order[:-1][gone[:-1] <= 1 - top_p]] = 0.0
    return q / q.sum()


@settings(max_examples=40, deadline=None)
@given(
    seed=SEEDS,
    size=st.one_of(st.integers(2, 300), st.integers(1000, 1200)),
    levels=st.integers(1, 200),
    temperature=st.floats(0.05, 2.0),
    top_k=st.one_of(st.integers(-1, 60), st.integers(900, 1300)),
    top_p=st.floats(0.01, 1.0),
    min_p=st.one_of(st.just(0.0), st.floats(0.001, 1.0)),
)
def test_pit_covers_the_unit_interval_once_in_steps_of_q(
    seed, size, levels, temperature, top_k, top_p, min_p
):
    """U runs over [0, 1] without gap or overlap, which makes it uniform, whatever ties and filters do."""
    logits = torch.randint(levels, (1, size), generator=torch.Generator().manual_seed(seed)) / 7.0
    rows = torch.arange(size)
    settings = SamplingParameters(
        *(torch.full((size,), x) for x in (temperature, top_k, top_p, min_p)), filtered=True
    )
    everywhere = logits.expand(size, size)
    q = _sampled(logits[0].double().numpy() / temperature, top_k, top_p, min_p)
    low = pit(everywhere, rows, settings, torch.zeros(size)).double()
    high = pit(everywhere, rows, settings, torch.ones(size)).double()
    spans = sorted(
        {(round(a, 5), round(b, 5)) for a, b in zip(low.tolist(), high.tolist(), strict=True) if b > a}
    )
    assert abs(spans[0][0]) < 1e-4
    assert abs(spans[-1][1] - 1) < 1e-4
    assert all(abs(before[1] - after[0]) < 1e-4 for before, after in pairwise(spans))
    up_to = np.array([q[q >= x].sum() for x in q])
    assert np.allclose(high.numpy()[q > 0], up_to[q > 0], atol=1e-4)


@EXAMPLES
@given(
    head=st.lists(st.integers(0, 3), max_size=200),
    cycle=st.lists(st.integers(0, 3), min_size=1, max_size=70),
    length=st.integers(0, 1500),
    periods=st.integers(1, 64),
)
def test_repetition_is_its_definition(head, cycle, length, periods):
    tokens = head + [cycle[i % len(cycle)] for i in range(length)]
    expected = 0
    for k in range(1, periods + 1):
        run = 0
        while run < len(tokens) - k and tokens[-1 - run] == tokens[-1 - run - k]:
            run += 1
        expected = max(expected, run + k) if run >= 2 * k else expected
    assert longest_period_tail(np.array(tokens, dtype=np.int64), periods) == expected

"""The attention kernels, interpreted, against the torch functions over every layout, form and batch that there is."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from introspan.capture.attention.statistics import (
    PagedKeys,
    Scoring,
    gather_blocks,
    paged_statistics,
    recompute_output,
)
from tests.strided import DTYPES, LAYOUTS, strided

# The interpreter takes some 10 ms a tile of keys.
EXAMPLES = settings(max_examples=24, deadline=None)
FEW = settings(EXAMPLES, max_examples=8)

# Of float32 sums in another order, the scores of which are up to some 30.
ENTROPY_NATS, MASS = 1e-4, 2e-5

HEADS = st.sampled_from([(9, 3), (4, 4), (6, 1), (3, 3)])
SEEDS = st.integers(0, 2**31)


@st.composite
def batches(draw):
    """Block size, lengths of rows, and keys of a range: single keys, whole blocks, more than a range."""
    block = draw(st.sampled_from([16, 32, 48]))
    lengths = st.one_of(st.just(1), st.integers(1, 3).map(lambda n: n * block), st.integers(2, 150))
    return block, draw(st.lists(lengths, min_size=1, max_size=3)), draw(st.sampled_from([32, 64, 512]))


@st.composite
def forms(draw, heads):
    """Every way in which a layer scores."""
    generator = torch.Generator().manual_seed(draw(SEEDS))
    slopes, sinks = (torch.randn(heads, generator=generator) for _ in range(2))
    return Scoring(
        draw(st.sampled_from([0.05, 0.3])),
        window=draw(st.one_of(st.none(), st.integers(1, 160))),
        softcap=draw(st.one_of(st.none(), st.floats(0.5, 30.0))),
        alibi_slopes=slopes.abs() * 0.1 if draw(st.booleans()) else None,
        sinks=sinks if draw(st.booleans()) else None,
    )


@st.composite
def cases(draw):
    """A filled cache, queries of its rows, and how they score."""
    heads, kv_heads = draw(HEADS)
    block, lengths, range_keys = draw(batches())
    d, dtype, seed = draw(st.sampled_from([64, 96, 128])), draw(st.sampled_from(list(DTYPES))), draw(SEEDS)
    made = strided(draw(st.sampled_from(list(LAYOUTS))), dtype, lengths, kv_heads, d, block, seed)
    of_queries = torch.bfloat16 if dtype.startswith("fp8") else DTYPES[dtype][0]
    q = torch.randn(len(lengths), heads, d, generator=torch.Generator().manual_seed(seed)).to(of_queries)
    scale = torch.tensor(0.5 + seed % 7 / 4) if dtype.startswith("fp8") else None
    return made, q, np.array(lengths), draw(forms(heads)), scale, range_keys


def _same(found, expected):
    for name, tolerance in (("entropy", ENTROPY_NATS), ("sink_mass", MASS), ("recent_mass", MASS)):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), atol=tolerance, rtol=0, equal_nan=True, msg=name
        )


@EXAMPLES
@given(case=cases())
def test_statistics_are_those_of_the_torch_function(interpreter, case):
    made, q, lengths, form, scale, range_keys = case
    keys = PagedKeys([made.cache], made.table, made.layout, None if scale is None else [scale])
    expected = paged_statistics([q], keys, np.arange(len(lengths)), lengths, form)
    found = interpreter.attention(q[None], keys, lengths, form, range_keys)
    assert not found.entropy.isnan().any()
    _same(found, expected)


@FEW
@given(case=cases())
def test_output_is_that_of_the_torch_function_and_statistics_beside_it_do_not_change(interpreter, case):
    made, q, lengths, form, scale, range_keys = case
    keys = PagedKeys([made.cache], made.table, made.layout, None if scale is None else [scale])
    value_scale = None if scale is None else scale * 3
    k, v = gather_blocks(made.cache, made.table, torch.from_numpy(lengths), made.layout)
    # What was never written is NaN; rows do not see it, but 0 · NaN is NaN.
    k, v = k.nan_to_num(0.0), v.nan_to_num(0.0)
    k, v = (k, v) if scale is None else (k * scale, v * value_scale)
    expected = recompute_output(q, k, v, torch.from_numpy(lengths), form)
    found = interpreter.output(q, keys, lengths, form, value_scale, range_keys)
    torch.testing.assert_close(found, expected, atol=1e-5 * float(1 + v.abs().max()), rtol=0)


@pytest.mark.parametrize("name", LAYOUTS)
def test_layers_have_caches_sinks_and_scales_of_their_own(interpreter, name):
    lengths, layers = [40, 70], 3
    made = [strided(name, "fp8_e4m3", lengths, 2, 64, 16, seed) for seed in range(layers)]
    table = made[0].table
    caches = []
    for each in made:  # in which other blocks hold the keys: put them where the first has them
        cache = made[0].cache.clone()
        axis = 1 if cache.shape[0] == 2 and cache.dim() == 5 else 0
        cache.index_copy_(
            axis, table.flatten().long(), each.cache.index_select(axis, each.table.flatten().long())
        )
        caches.append(cache)
    q = torch.randn(layers, 2, 4, 64, generator=torch.Generator().manual_seed(9)).to(torch.bfloat16)
    sinks = torch.randn(layers, 1, 4, generator=torch.Generator().manual_seed(10))
    scales = [torch.tensor(0.5 + layer) for layer in range(layers)]
    keys, form = PagedKeys(caches, table, made[0].layout, scales), Scoring(0.1, window=50, sinks=sinks)
    expected = paged_statistics(list(q), keys, np.arange(2), np.array(lengths), form)
    _same(interpreter.attention(q, keys, np.array(lengths), form, 64), expected)


def test_a_row_of_more_ranges_than_are_merged_at_once_is_that_of_the_torch_function(interpreter):
    lengths, form = np.array([1300, 40]), Scoring(0.3)
    made = strided("LBNHC", "float32", lengths.tolist(), 1, 64, 16)
    q = torch.randn(1, 2, 2, 64, generator=torch.Generator().manual_seed(4))
    keys = PagedKeys([made.cache], made.table, made.layout)
    expected = paged_statistics(list(q), keys, np.arange(2), lengths, form)
    _same(interpreter.attention(q, keys, lengths, form, 32), expected)


@pytest.mark.parametrize(("window", "is_measured"), [(41, True), (40, True), (39, False)])
def test_the_sink_is_measured_until_the_window_has_left_it_behind(interpreter, window, is_measured):
    made = strided("LBHNC", "float32", [40], 1, 64, 16)
    keys = PagedKeys([made.cache], made.table, made.layout)
    found = interpreter.attention(
        torch.ones(1, 1, 1, 64), keys, np.array([40]), Scoring(0.1, window=window), 32
    )
    assert bool(found.sink_mass.isfinite().all()) == is_measured


def test_memory_that_no_row_attends_to_is_never_read(interpreter):
    lengths, form = np.array([200, 40]), Scoring(0.2, window=50)
    made = strided("LBNHC", "float32", lengths.tolist(), 2, 64, 16)
    q = torch.randn(1, 2, 4, 64, generator=torch.Generator().manual_seed(2))
    before = interpreter.attention(q, PagedKeys([made.cache], made.table, made.layout), lengths, form, 64)
    made.cache[made.table[0, :9].long()] = math.nan  # keys 0–143; the window begins at 150
    made.table[0, :9] = 2**30  # a block that is in no memory: reading it would end the process
    made.table[1, 3:] = 2**30
    after = interpreter.attention(q, PagedKeys([made.cache], made.table, made.layout), lengths, form, 64)
    _same(after, before)
    assert not after.entropy.isnan().any()


def test_non_finite_keys_spoil_their_own_row_and_head_only(interpreter):
    made = strided("LBHNC", "float32", [40, 40], 2, 64, 16)
    made.cache[made.table[0, 0].long(), 1, 3, 5] = math.nan  # number 5 of key 3
    q = torch.randn(1, 2, 6, 64, generator=torch.Generator().manual_seed(3))
    keys = PagedKeys([made.cache], made.table, made.layout)
    found = interpreter.attention(q, keys, np.array([40, 40]), Scoring(0.2), 32)
    spoilt = torch.zeros(1, 2, 6, dtype=torch.bool)
    spoilt[0, 0, 3:] = True
    for name in ("entropy", "sink_mass", "recent_mass"):
        assert torch.equal(getattr(found, name).isnan(), spoilt), name


def test_a_score_of_minus_infinity_has_no_weight(interpreter):
    made = strided("LBHNC", "float32", [40], 1, 64, 16)
    q = torch.ones(1, 1, 1, 64)
    made.cache[made.table[0, 0].long(), 0, 3, 5] = -math.inf
    keys = PagedKeys([made.cache], made.table, made.layout)
    found = interpreter.attention(q, keys, np.array([40]), Scoring(0.2), 32)
    _same(found, paged_statistics(list(q), keys, np.array([0]), np.array([40]), Scoring(0.2)))


def test_rows_of_no_keys_are_not_measured(interpreter):
    made = strided("LBHNC", "float32", [40, 40], 1, 64, 16)
    keys = PagedKeys([made.cache], made.table, made.layout)
    q = torch.ones(1, 2, 1, 64)
    found = interpreter.attention(q, keys, np.array([0, 40]), Scoring(0.2), 32)
    assert found.entropy.isnan().flatten().tolist() == [True, False]

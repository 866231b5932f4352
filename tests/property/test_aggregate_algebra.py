"""The algebra of the aggregates: merging is associative and commutative, and equals one pass over everything."""

from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings
from hypothesis.extra import numpy as npst

from bench.fleet import batch, origin
from introspan_collector.aggregate.aggregator import Aggregator
from introspan_collector.model import DisabledSignal, ProducerStatus
from introspan_collector.moments import Moments
from introspan_collector.sums import merge_rows, sum_columns
from introspan_wire.codec import Column, Schema, SegmentTable
from introspan_wire.signals import Kind, Statistic

NOW = 1_800_000_000 * 10**9
# The algebra is what is tested, not how busy the machine is.
UNHURRIED = settings(deadline=None)
FLOATS = st.one_of(st.floats(-1e4, 1e4, width=32), st.just(float("nan")), st.just(float("inf")))
SCHEMA = Schema(
    Kind.DECODED,
    (
        Column("attention.entropy", Statistic.MEAN, 3, 0),
        Column("output.entropy", Statistic.MEAN),
        Column("attention.entropy", Statistic.MEAN, 1, 0),
        Column("residual.nonfinite", Statistic.SUM, 1),
        Column("attention.entropy", Statistic.MEAN, 3, 1),
        Column("sampler.pit", Statistic.MEAN),
        Column("sampler.pit", Statistic.FIRST),
        Column("residual.projection", Statistic.SAMPLE, 3, component=0),
        Column("output.repetition", Statistic.MAX),
    ),
)
KEYS = {
    ("attention.entropy", 1): (2,),
    ("attention.entropy", 3): (0, 4),
    ("output.entropy", -1): (1,),
    ("output.repetition", -1): (8,),
    ("residual.nonfinite", 1): (3,),
    ("sampler.pit", -1): (6,),
}


@st.composite
def samples(draw):
    count = draw(st.integers(0, 12))
    values = draw(npst.arrays(np.float32, count, elements=FLOATS))
    weights = draw(npst.arrays(np.float64, count, elements=st.floats(1, 100)))
    return values, weights


@st.composite
def tables(draw):
    rows = draw(st.integers(1, 6))
    one = np.ones(rows, np.uint32)
    return SegmentTable(
        schema=SCHEMA,
        request_id=["r"] * rows,
        trace_id=np.zeros((rows, 16), np.uint8),
        span_id=np.zeros((rows, 8), np.uint8),
        cluster_key=np.zeros(rows, np.uint64),
        adapter=draw(st.lists(st.sampled_from(["", "lora"]), min_size=rows, max_size=rows)),
        segment_index=one,
        token_start=one,
        token_count=one,
        measured_count=one,
        prompt_tokens=one,
        cached_tokens=one,
        time_unix_nano=np.full(rows, NOW, np.uint64),
        sampling_probability=draw(npst.arrays(np.float32, rows, elements=st.sampled_from([1.0, 0.5, 0.125]))),
        values=draw(npst.arrays(np.float32, (rows, len(SCHEMA.columns)), elements=FLOATS)),
    )


COUNTS = st.integers(0, 2**40)
TEXTS = st.text(max_size=5)
STATUSES = st.builds(
    ProducerStatus,
    measured_steps=COUNTS,
    measured_rows=COUNTS,
    capture_seconds=st.floats(0, 1e6),
    drops=st.lists(st.tuples(TEXTS, COUNTS), max_size=3).map(tuple),
    disabled=st.lists(st.builds(DisabledSignal, TEXTS, TEXTS, TEXTS), max_size=3).map(tuple),
    probe_errors=COUNTS,
    sampler_rows_skipped=COUNTS,
    attention_rows_skipped=COUNTS,
    sampling_probability=st.floats(0, 1),
)


@st.composite
def batches(draw):
    return [
        batch(
            draw(tables()),
            who=origin(draw(st.sampled_from(["a", "b"])), draw(st.sampled_from(["0", "1"]))),
            number=number,
            received_unix_nano=NOW - draw(st.sampled_from([0, 9, 25])) * 10**9,
            status=draw(st.none() | STATUSES),
        )
        for number in range(draw(st.integers(1, 6)))
    ]


def moments_of(values, weights):
    if not len(values):
        return Moments.empty((1, 1))
    start = np.zeros(1, np.intp)
    return merge_rows(sum_columns(values[None], start), weights, start)


def same(left, right):
    for name in Moments.__slots__:
        # m2 is a difference of squares: its rounding grows with the squares.
        scale = 1e-9 * (1 + np.max(np.abs(left.weight) * left.mean**2 + left.m2, initial=0))
        tolerance = scale if name == "m2" else 1e-6
        np.testing.assert_allclose(
            getattr(left, name), getattr(right, name), rtol=1e-9, atol=tolerance, err_msg=name
        )


@UNHURRIED
@given(samples(), samples())
def test_merging_is_commutative(first, second):
    a, b = moments_of(*first), moments_of(*second)
    same(a.merge(b), b.merge(a))


@UNHURRIED
@given(samples(), samples(), samples())
def test_merging_is_associative(first, second, third):
    a, b, c = moments_of(*first), moments_of(*second), moments_of(*third)
    same(a.merge(b).merge(c), a.merge(b.merge(c)))


@UNHURRIED
@given(st.lists(samples(), min_size=1, max_size=5))
def test_merging_parts_equals_one_pass_over_all(parts):
    merged = Moments.empty((1, 1))
    for part in parts:
        merged = merged.merge(moments_of(*part))
    whole = moments_of(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    same(merged, whole)


@UNHURRIED
@given(st.lists(samples(), min_size=1, max_size=5))
def test_over_an_axis_and_by_group_equal_one_pass(parts):
    sets = [moments_of(*part).at((0, 0)) for part in parts]
    stacked = Moments(*(np.array([getattr(one, name) for one in sets]) for name in Moments.__slots__))
    whole = moments_of(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True))).at(0)
    same(stacked.grouped(np.zeros(len(sets), np.intp), 1), whole)
    same(stacked.over(0), whole.at(0))


@UNHURRIED
@given(samples())
def test_weighted_statistics_are_those_of_the_repeated_sample(sample):
    values, weights = sample
    weights = np.round(weights)
    finite = np.isfinite(values)
    repeated = np.repeat(values[finite].astype(np.float64), weights[finite].astype(int))
    got = moments_of(values, weights)
    assert got.count.item() == finite.sum()
    assert got.weight.item() == len(repeated)
    if len(repeated):
        spread = np.abs(repeated).max() ** 2 * len(repeated)
        np.testing.assert_allclose(got.mean.item(), repeated.mean(), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(
            got.m2.item(), ((repeated - repeated.mean()) ** 2).sum(), atol=1e-9 * (1 + spread)
        )
        assert (got.low.item(), got.high.item()) == (values[finite].min(), values[finite].max())


def shown(aggregator):
    view = aggregator.view()
    window = {key: view.window.at([i]) for i, key in enumerate(view.series) if view.window.count[i]}
    histograms = {(h.model, h.replica, h.signal): (h.counts, h.total) for h in view.histograms}
    return window, histograms, dict(view.events)


def agree(left, right):
    assert left[0].keys() == right[0].keys()
    for key, sets in left[0].items():
        same(sets, right[0][key])
    agree_cumulative(left, right)


def agree_cumulative(left, right):
    assert left[1].keys() == right[1].keys()
    for key, (counts, total) in left[1].items():
        np.testing.assert_allclose(counts, right[1][key][0], err_msg=str(key))
        np.testing.assert_allclose(total, right[1][key][1], rtol=1e-9, atol=1e-3)
    assert left[2].keys() == right[2].keys()
    for key, total in left[2].items():
        np.testing.assert_allclose(total, right[2][key], rtol=1e-9, atol=1e-3)


def aggregated(of, *, views_between=False):
    aggregator = Aggregator(clock_unix_nano=lambda: NOW)
    for one in of:
        aggregator.consume(one)
        if views_between:
            aggregator.view()
    return aggregator


@UNHURRIED
@given(batches(), st.randoms())
def test_order_of_batches_makes_no_difference(of, random):
    shuffled = list(of)
    random.shuffle(shuffled)
    agree(shown(aggregated(of)), shown(aggregated(shuffled)))


@UNHURRIED
@given(batches())
def test_reducing_one_by_one_equals_reducing_together(of):
    agree(shown(aggregated(of)), shown(aggregated(of, views_between=True)))


@UNHURRIED
@given(batches())
def test_window_equals_a_plain_loop_over_every_value(of):
    expected = {}
    for one in of:
        table = one.tables[0]
        for row, adapter in enumerate(table.adapter):
            for (signal, layer), columns in KEYS.items():
                key = (one.origin.model, one.origin.replica, adapter, signal, layer)
                for column in columns:
                    value = float(table.values[row, column])
                    if np.isfinite(value):
                        expected.setdefault(key, []).append(
                            (value, 1 / float(table.sampling_probability[row]))
                        )
    window = shown(aggregated(of))[0]
    assert set(window) == set(expected)
    for key, pairs in expected.items():
        values, weights = np.array(pairs).T
        assert window[key].count.item() == len(values)
        np.testing.assert_allclose(
            window[key].mean.item(), np.average(values, weights=weights), rtol=1e-6, atol=1e-6
        )


@UNHURRIED
@given(batches())
def test_histograms_equal_a_plain_loop_over_every_value(of):
    aggregator = aggregated(of)
    for view in aggregator.view().histograms:
        expected = np.zeros(len(view.bounds) + 1)
        edges = [-np.inf, *np.float32(view.bounds).tolist(), np.inf]
        columns = [c for (signal, _), at in KEYS.items() if signal == view.signal for c in at]
        for one in of:
            if (one.origin.model, one.origin.replica) == (view.model, view.replica):
                table = one.tables[0]
                for row, column in np.ndindex(len(table), len(columns)):
                    value = float(table.values[row, columns[column]])
                    if np.isfinite(value):
                        bucket = next(
                            i for i, (low, high) in enumerate(pairwise(edges)) if low < value <= high
                        )
                        expected[bucket] += 1 / float(table.sampling_probability[row])
        np.testing.assert_allclose(view.counts, expected)


@UNHURRIED
@given(batches(), st.data())
def test_going_on_from_a_checkpoint_equals_going_on(of, data):
    cut = data.draw(st.integers(0, len(of)))
    before = aggregated(of[:cut])
    after = Aggregator(clock_unix_nano=lambda: NOW)
    after.restore(before.snapshot())
    for one in of[cut:]:
        after.consume(one)
    uninterrupted = aggregated(of)
    assert uninterrupted.view().workers == after.view().workers
    agree_cumulative(shown(uninterrupted), shown(after))

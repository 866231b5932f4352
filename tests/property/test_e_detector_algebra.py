"""The sequential test over any evidence: restored anywhere it goes on bit by bit, and its bound holds step by step."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays

from introspan_collector.detect.sequential.budget import shared_out
from introspan_collector.detect.sequential.e_detector import CAUTIONS, LONGEST_SECONDS, EDetector
from introspan_collector.detect.sequential.evidence import SHARES, Stream
from introspan_collector.detect.sequential.tick import Ticks, TickSettings

UNHURRIED = settings(deadline=None)
STREAMS = [
    Stream(model, replica, "", detector, "prompt", "output.entropy", layer, side)
    for model in ("a", "b")
    for replica in ("", "r0")
    for detector in ("bank", "canary")
    for layer in (-1, 3)
    for side in ("high", "low")
]
BOUNDS = st.one_of(st.sampled_from([0.0, 0.05, 0.5, 1.0, 1.3]), st.floats(1e-12, 1))
UNIT = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
NOW = st.floats(-1e10, 1e10)


@st.composite
def followed(draw):
    streams = draw(st.lists(st.sampled_from(STREAMS), unique=True, max_size=6))
    return streams, draw(arrays.arrays(np.float64, len(streams), elements=BOUNDS))


@st.composite
def histories(draw):
    """What a detector lives through: other streams, and evidence at any times."""
    history = []
    count = 0
    for _ in range(draw(st.integers(1, 12))):
        if not history or draw(st.integers(0, 4)) == 0:
            streams, bound = draw(followed())
            count = len(streams)
            history.append(("follow", (streams, bound, shared_out(streams, bound))))
        else:
            x = draw(arrays.arrays(np.float64, count, elements=st.one_of(UNIT, st.just(np.nan))))
            history.append(("update", (x, draw(NOW))))
    return history


@st.composite
def gatherings(draw):
    """What ticks live through: other streams, evidence, and looks at the clock."""
    history = []
    count = 0
    for _ in range(draw(st.integers(1, 16))):
        what = draw(st.sampled_from(["follow", "add", "add", "close"]))
        if what == "follow":
            streams, _ = draw(followed())
            count = len(streams)
            history.append(("follow", (streams, np.full(count, draw(st.integers(1, 3))))))
        elif what == "add" and count:
            n = draw(st.integers(1, 8))
            rows = draw(arrays.arrays(np.intp, n, elements=st.integers(0, count - 1)))
            clusters = draw(arrays.arrays(np.uint64, n, elements=st.integers(0, 4)))
            x = draw(arrays.arrays(np.float64, n, elements=st.one_of(UNIT, st.just(np.nan))))
            history.append(("add", (rows, clusters, x)))
        else:
            history.append(("close", (draw(st.floats(0, 100)),)))
    return history


def play(one, history):
    return [getattr(one, what)(*arguments) for what, arguments in history]


@given(histories(), st.data())
@UNHURRIED
def test_a_detector_restored_anywhere_goes_on_bit_by_bit(history, data):
    whole, first, second = EDetector(1e4), EDetector(1e4), EDetector(1e4)
    split = data.draw(st.integers(0, len(history)))
    alarms = play(whole, history)
    before = play(first, history[:split])
    second.restore(first.snapshot())
    assert before + play(second, history[split:]) == alarms
    assert second.snapshot() == whole.snapshot()


@given(gatherings(), st.data())
@UNHURRIED
def test_ticks_restored_anywhere_go_on_bit_by_bit(history, data):
    whole, first, second = (Ticks(TickSettings(pair_limit=6)) for _ in range(3))
    split = data.draw(st.integers(0, len(history)))
    ticks = play(whole, history)
    before = play(first, history[:split])
    second.restore(first.snapshot())
    for one, other in zip(before + play(second, history[split:]), ticks, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert (one.x.tobytes(), one.clusters.tobytes()) == (other.x.tobytes(), other.clusters.tobytes())
    assert second.snapshot() == whole.snapshot()


@given(histories())
@UNHURRIED
def test_evidence_is_never_negative_never_nan_and_below_the_threshold_after_every_tick(history):
    detector = EDetector(1e4)
    for what, arguments in history:
        getattr(detector, what)(*arguments)
        assert not np.isnan(detector.evidence()).any()
        if what == "update":
            assert all(level < 0 for level in detector.levels().values())


@given(histories(), st.data())
@UNHURRIED
def test_the_expectation_of_one_step_grows_by_no_more_than_the_clock(history, data):
    """For X that is 0 or 1 with mean m the step is computed exactly, over every state that can be reached."""
    detector = EDetector(1e4)
    streams, bound = data.draw(followed().filter(lambda drawn: len(drawn[0]) > 0))
    play(detector, history)
    detector.follow(streams, bound, shared_out(streams, bound))
    detector.update(np.full(len(streams), np.nan), data.draw(NOW))
    start, started, due, before = detector.snapshot(), detector._time, detector._due.copy(), total(detector)
    now = started + data.draw(st.floats(0, 1e4))
    i = data.draw(st.integers(0, len(streams) - 1))
    after = {}
    for value in (0.0, 1.0):
        detector.restore(start)
        x = np.full(len(streams), np.nan)
        x[i] = value
        alarms = len(detector.update(x, now))
        after[value] = alarms + total(detector)
    m = min(detector._bound[i], 1.0)
    expected = m * after[1.0] + (1 - m) * after[0.0]
    clock = min(due[i] + detector._share[i] * (now - started), detector._share[i] * LONGEST_SECONDS) / 1e4
    assert expected <= (before + clock) * (1 + 1e-9)


def total(detector):
    """Σ of the mean of M over λ."""
    return float(np.exp(detector._log_m).sum() / len(CAUTIONS))


@given(gatherings(), st.randoms())
@UNHURRIED
def test_the_order_of_evidence_within_a_tick_does_not_matter(history, random):
    adds = [entry for entry in history if entry[0] == "add"]
    shuffled = random.sample(adds, len(adds))
    ticks = []
    for order in (adds, shuffled):
        one = Ticks()
        one.follow(STREAMS[:6], np.full(6, 1))
        one.close(0.0)
        play(one, order)
        ticks.append(one.close(10.0))
    if ticks[0] is None:
        assert ticks[1] is None
    else:
        np.testing.assert_allclose(ticks[0].x, ticks[1].x, rtol=1e-12)
        np.testing.assert_array_equal(ticks[0].clusters, ticks[1].clusters)


@given(gatherings())
@UNHURRIED
def test_a_tick_is_the_mean_of_cluster_means(history):
    values = {}
    one = Ticks()
    one.follow(STREAMS[:6], np.full(6, 1))
    one.close(0.0)
    for what, arguments in history:
        if what == "add":
            one.add(*arguments)
            for row, cluster, x in zip(*arguments, strict=True):
                if not np.isnan(x):
                    values.setdefault(int(row), {}).setdefault(int(cluster), []).append(x)
    tick = one.close(10.0)
    expected = [
        np.mean([np.mean(x) for x in values[row].values()]) if row in values else np.nan for row in range(6)
    ]
    np.testing.assert_allclose(np.full(6, np.nan) if tick is None else tick.x, expected, rtol=1e-12)


@given(followed())
def test_shares_are_a_distribution_over_what_exists(drawn):
    streams, bound = drawn
    share = shared_out(streams, bound)
    live = (bound > 0) & (bound < 1)
    assert np.all(share[~live] == 0)
    assert np.all(share[live] > 0)
    assert abs(share.sum() - live.any()) < 1e-12
    models = {model: share[[stream.model == model for stream in streams]].sum() for model in ("a", "b")}
    if all(models.values()):
        assert abs(models["a"] - models["b"]) < 1e-12


def test_the_shares_of_a_model_sum_to_one():
    assert abs(sum(SHARES.values()) - SHARES["reprefill"] - 1) < 1e-12

"""The e-detector step by step: delay on known shifts, edges; and the ticks, shares and bounds it is fed with."""

import math
import time

import numpy as np
import pytest
from scipy.stats import beta

from introspan_collector.detect.sequential.alarm import Alarm, Carrier
from introspan_collector.detect.sequential.budget import shared_out
from introspan_collector.detect.sequential.e_detector import (
    CAUTIONS,
    LONGEST_SECONDS,
    TICKET_SECONDS,
    EDetector,
)
from introspan_collector.detect.sequential.evidence import SHARES, Stream
from introspan_collector.detect.sequential.recovery import Recovery, RecoverySettings
from introspan_collector.detect.sequential.tick import Ticks, TickSettings
from introspan_collector.detect.sequential.tolerance import mean_bound, tail_bound

TICK = 10.0
NONE = np.nan


def stream(number=0, model="chat", adapter="", detector="bank"):
    return Stream(model, "", adapter, detector, "prompt", "output.entropy", number, "high")


def following(streams, bound, share=None, seconds=TICKET_SECONDS):
    detector = EDetector(seconds)
    bound = np.array(bound, float)
    detector.follow(streams, bound, shared_out(streams, bound) if share is None else np.array(share, float))
    detector.update(np.full(len(streams), NONE), 0.0)
    return detector


def ticks_until_alarm(detector, draw, limit=100_000):
    for number in range(1, limit):
        if alarms := detector.update(draw(), TICK * number):
            return number, alarms
    pytest.fail(f"no alarm in {limit} ticks")


def test_one_step_is_the_formula():
    detector = following([stream()], [0.05])
    detector.update(np.array([0.2]), TICK)
    detector.update(np.array([0.0]), 2 * TICK)
    m = 0.0
    seed = TICK / TICKET_SECONDS
    m = (0 + seed) * (1 + CAUTIONS / 0.05 * (0.2 - 0.05))
    m = (m + seed) * (1 + CAUTIONS / 0.05 * (0.0 - 0.05))
    assert detector.levels()[("chat", "")] == pytest.approx(math.log10(m.mean()))


def test_groups_add_their_streams_and_do_not_average_them():
    shares = [0.5, 0.25]
    detector = following([stream(0), stream(1)], [0.5, 0.5], shares)
    x = np.array([0.9, 0.6])
    detector.update(x, TICK)
    m = [
        pi * TICK / TICKET_SECONDS * (1 + CAUTIONS / 0.5 * (v - 0.5)).mean()
        for pi, v in zip(shares, x, strict=True)
    ]
    assert detector.levels()[("chat", "")] == pytest.approx(math.log10(sum(m)))


@pytest.mark.parametrize(("bound", "x"), [(0.05, 0.2), (0.074, 0.5), (0.5, 0.6), (1 / 65, 0.25), (0.9, 1.0)])
def test_delay_on_a_constant_shift_is_the_closed_form(bound, x):
    growth = 1 + CAUTIONS / bound * (x - bound)
    seed = TICK / TICKET_SECONDS
    # Σ_{k ≤ n} seed · growthᵏ, averaged over λ, reaches 1.
    n = np.arange(1, 100_000)[:, None]
    with np.errstate(over="ignore"):
        reached = (seed * growth * (growth**n - 1) / (growth - 1)).mean(1) >= 1
    expected = int(np.argmax(reached)) + 1
    assert ticks_until_alarm(following([stream()], [bound]), lambda: np.array([x]))[0] == expected


def test_delay_on_a_random_shift_is_threshold_over_expected_growth():
    """Tails at twice their rate, from means of 16 clusters: log(T/Δt) over E log growth of the best λ."""
    random = np.random.default_rng(5)
    draws = random.binomial(16, 0.15, 100_000) / 16
    growth = np.log1p(CAUTIONS / 0.05 * (draws[:, None] - 0.05)).mean(0).max()
    expected = math.log(TICKET_SECONDS / TICK) / growth
    delays = [
        ticks_until_alarm(following([stream()], [0.05]), lambda: random.binomial(16, 0.15, 1) / 16)[0]
        for _ in range(60)
    ]
    assert 0.7 * expected < np.mean(delays) < 1.3 * expected


def test_an_alarm_says_what_carries_it_how_sure_it_is_and_how_often_it_is_false():
    streams = [stream(number) for number in range(40)]
    detector = following(streams, [0.05] * 40)
    x = np.full(40, 0.05)
    x[7], x[9] = 1.0, 0.6
    _, (alarm,) = ticks_until_alarm(detector, lambda: x)
    assert (alarm.model, alarm.adapter, alarm.false_alarm_seconds) == ("chat", "", TICKET_SECONDS)
    assert alarm.level >= 0
    assert alarm.carriers[0].stream == streams[7]
    assert alarm.carriers[0].share > 0.9
    assert len(alarm.carriers) <= 16
    assert sum(carrier.share for carrier in alarm.carriers) <= 1 + 1e-9


def test_an_alarm_resets_its_own_model_and_no_other():
    streams = [stream(0, "a"), stream(0, "b")]
    detector = following(streams, [0.05, 0.05])
    _, alarms = ticks_until_alarm(detector, lambda: np.array([1.0, 0.1]))
    assert [alarm.model for alarm in alarms] == ["a"]
    assert detector.levels()["a", ""] == -math.inf
    assert -4 < detector.levels()["b", ""] < 0


def test_what_cannot_happen_is_an_alarm_at_once():
    detector = following([stream(0), stream(1)], [0.0, 0.05])
    assert detector.update(np.array([0.0, 0.05]), TICK) == ()
    (alarm,) = detector.update(np.array([1e-6, 0.05]), 2 * TICK)
    assert alarm.level == math.inf
    assert alarm.carriers == (Carrier(stream(0), 1.0),)
    assert detector.update(np.array([0.0, 0.05]), 3 * TICK) == ()


def test_a_bound_of_one_or_more_can_never_be_exceeded_and_takes_no_budget():
    streams = [stream(0), stream(1), stream(2)]
    share = shared_out(streams, np.array([1.0, 1.7, 0.999]))
    assert share.tolist() == [0.0, 0.0, 1.0]
    detector = following(streams, [1.0, 1.7, 0.999])
    for number in range(2_000):
        assert detector.update(np.array([1.0, 1.0, NONE]), TICK * number) == ()
    assert detector.evidence()[:2].tolist() == [-math.inf, -math.inf]


def test_silence_raises_no_alarm_and_counts_at_most_the_longest_step():
    detector = following([stream()], [0.5], seconds=1_000.0)
    for number in range(1_000):
        assert detector.update(np.array([NONE]), TICK * number) == ()
    detector.update(np.array([0.5]), 1e4)
    assert detector.levels()["chat", ""] == pytest.approx(math.log10(LONGEST_SECONDS / 1_000))


def test_time_without_evidence_counts_at_the_next_evidence():
    seldom, often = following([stream()], [0.5]), following([stream()], [0.5])
    often.update(np.array([0.5]), TICK)
    often.update(np.array([0.5]), 3 * TICK)
    seldom.update(np.array([NONE]), TICK)
    seldom.update(np.array([0.5]), 3 * TICK)
    assert seldom.levels() == pytest.approx(often.levels())


@pytest.mark.parametrize(
    ("times", "counted"),
    [
        ([0, 10, 5, 10, 20], 20),  # jitter backward is no time, nor is the way back
        ([0, 10, 10, 20], 20),
        ([0, 10, 3.2e7, 3.2e7 + 10], 10 + LONGEST_SECONDS + 10),  # a year forward
        ([0, 10, 3.2e7, 20, 30], 10 + LONGEST_SECONDS + 10),  # and back: time goes on from there
        ([1e6, 10, 20], 10),
    ],
)
def test_clock_jumps_are_cut_and_time_goes_on(times, counted):
    detector = EDetector(1e6)
    detector.follow([stream()], np.array([0.5]), np.array([1.0]))
    for now in times:
        detector.update(np.array([0.5]), float(now))
    assert 10 ** detector.levels()["chat", ""] == pytest.approx(counted / 1e6)


def test_streams_that_come_and_go_leave_the_others_evidence_and_never_count_time_twice():
    detector = EDetector(1e6)
    one, two = stream(1), stream(2)
    detector.follow([one], np.array([0.5]), np.array([1.0]))
    detector.update(np.array([0.5]), 0.0)
    detector.update(np.array([0.5]), 100.0)
    detector.follow([two, one], np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    detector.update(np.array([0.5, 0.5]), 300.0)
    np.testing.assert_allclose(10 ** detector.evidence(), [100 / 1e6, 200 / 1e6])
    detector.follow([two], np.array([0.5]), np.array([1.0]))
    detector.update(np.array([0.5]), 400.0)
    detector.follow([one, two], np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    np.testing.assert_allclose(10 ** detector.evidence(), [0, 200 / 1e6])


def test_time_that_waits_for_evidence_outlasts_a_change_of_streams():
    detector = following([stream(1)], [0.5], seconds=1e6)
    detector.update(np.array([NONE]), 100.0)
    detector.follow([stream(2), stream(1)], np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    detector.update(np.array([0.5, 0.5]), 200.0)
    np.testing.assert_allclose(10 ** detector.evidence(), [50 / 1e6, 150 / 1e6])


def test_years_of_extreme_evidence_stay_finite():
    streams = [stream(number, f"m{number}") for number in range(4)]
    detector = following(streams, [1e-300, 0.05, 0.5, 0.999])
    random = np.random.default_rng(0)
    for number in range(1, 3_000):
        x = random.choice([0.0, 1.0], 4) if number > 1_500 else np.zeros(4)
        alarms = detector.update(x, number * TICKET_SECONDS)
        assert all(math.isfinite(alarm.level) for alarm in alarms)
        assert not np.isnan(detector.evidence()).any()
        assert max(detector.levels().values()) < 0


@pytest.mark.parametrize("x", [-1e-9, 1 + 1e-9, math.inf])
def test_evidence_outside_the_unit_interval_is_refused_with_its_stream(x):
    detector = following([stream(3)], [0.5])
    with pytest.raises(ValueError, match=r"x must be in \[0, 1\], got .*output\.entropy"):
        detector.update(np.array([x]), TICK)


@pytest.mark.parametrize(
    ("streams", "bound", "share", "message"),
    [
        ([stream(), stream()], [0.1, 0.1], [0.5, 0.5], "streams must be distinct"),
        ([stream()], [-0.1], [1.0], "bound must be finite and >= 0, got -0.1"),
        ([stream()], [NONE], [1.0], "bound must be finite"),
        ([stream(0), stream(1)], [0.1, 0.1], [0.7, 0.7], "sum to at most 1, got a sum of 1.4"),
    ],
)
def test_streams_that_would_break_the_bound_are_refused(streams, bound, share, message):
    with pytest.raises(ValueError, match=message):
        EDetector(TICKET_SECONDS).follow(streams, np.array(bound), np.array(share))


def test_ten_thousand_streams_take_well_under_20_ms_a_tick():
    streams = [stream(number, f"m{number % 50}") for number in range(10_000)]
    detector = following(streams, [0.05] * 10_000)
    x = np.random.default_rng(0).uniform(0, 0.09, (20, 10_000))
    took = []
    for number in range(20):
        start = time.perf_counter()
        detector.update(x[number], TICK * number)
        took.append(time.perf_counter() - start)
    # The least, because the machine may be busy with others: what is claimed is what the work costs.
    assert min(took) < 0.015


def test_evidence_gathered_for_another_mean_time_is_scaled_to_it():
    gathered = following([stream()], [0.5], seconds=1e6)
    gathered.update(np.array([0.6]), 100.0)
    other = EDetector(1e5)
    other.restore(gathered.snapshot())
    assert other.levels()["chat", ""] == pytest.approx(gathered.levels()["chat", ""] + 1)


@pytest.mark.parametrize("of", [lambda: following([stream()], [0.5]), Ticks])
def test_a_damaged_checkpoint_is_refused_with_a_remedy(of):
    whole = of().snapshot()
    random = np.random.default_rng(1)
    spots = random.integers(0, len(whole), 60)
    for damaged in [b"", whole[:-1], whole + b"x", *(_flipped(whole, spot) for spot in spots)]:
        with pytest.raises(ValueError, match=r"damaged .* delete it to start anew"):
            of().restore(damaged)


def test_a_checkpoint_of_something_else_is_refused():
    with pytest.raises(
        ValueError,
        match="checkpoint of the tick is one of the e-detector, version 1: delete it to start anew",
    ):
        Ticks().restore(following([stream()], [0.5]).snapshot())


def _flipped(data, spot):
    damaged = bytearray(data)
    damaged[spot] ^= 0x10
    return bytes(damaged)


# Shares.


def test_shares_sum_to_one_over_what_exists_and_follow_the_table_inside_a_model():
    streams = [
        *(stream(number, "a") for number in range(30)),
        stream(0, "a", detector="extremes"),
        stream(0, "b", "tuned", "drift"),
    ]
    share = shared_out(streams, np.full(32, 0.05))
    assert share.sum() == pytest.approx(1)
    assert share[31] == pytest.approx(0.5)
    assert share[30] / share[:30].sum() == pytest.approx(SHARES["extremes"] / SHARES["bank"])
    assert np.ptp(share[:30]) == 0


def test_a_detector_without_a_share_is_refused():
    with pytest.raises(ValueError, match=r"detector must be one of .*, got tarot"):
        shared_out([stream(detector="tarot")], np.array([0.5]))


def test_nothing_to_share_is_no_error():
    assert shared_out([], np.zeros(0)).tolist() == []
    assert shared_out([stream()], np.zeros(1)).tolist() == [0.0]


# Bounds.


@pytest.mark.parametrize(
    ("below", "size"), [(1, 64), (3, 60), (100, 2_000), (1_000, 20_000), (1, 20_000), (60, 60)]
)
@pytest.mark.parametrize("chance", [0.01, 1e-5, 1e-9])
def test_tail_bound_is_the_quantile_of_the_beta_distribution(below, size, chance):
    assert tail_bound(below, size, chance) == pytest.approx(
        beta.isf(chance, below, size + 1 - below), rel=1e-9
    )


def test_mean_bound_holds_for_all_but_that_fraction_of_references_with_and_without_ties():
    random = np.random.default_rng(3)
    for levels in (2**53, 3):
        means = (np.floor(random.random((20_000, 40)) * levels) + 0.5).mean(1) / levels
        assert (means > mean_bound(40, 0.05)).mean() < 0.05
    assert mean_bound(2_000, 1e-5) == pytest.approx(0.531, abs=1e-3)


@pytest.mark.parametrize("arguments", [(0, 5, 0.1), (1, 0, 0.1), (1, 5, 0.0), (1, 5, 1.0)])
def test_bounds_of_nonsense_are_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        tail_bound(*arguments)


def test_a_reference_too_small_for_a_cut_bounds_nothing():
    assert tail_bound(4, 3, 0.01) == 1.0
    assert mean_bound(1, 1e-9) == 1.0


# Ticks.


def ticks_of(count, fewest=8, **settings):
    ticks = Ticks(TickSettings(**settings))
    ticks.follow([stream(number) for number in range(count)], np.full(count, fewest))
    assert ticks.close(0.0) is None
    return ticks


def keys(*numbers):
    return np.array(numbers, np.uint64)


def test_a_tick_is_the_mean_of_cluster_means_whatever_the_size_of_a_cluster():
    ticks = ticks_of(2, fewest=2)
    ticks.add(np.array([0]), keys(*[7] * 1_000), np.ones(1_000))
    ticks.add(np.array([0, 1]), keys(8, 9)[:, None], np.array([[0.0, NONE], [0.25, 0.5]]))
    tick = ticks.close(TICK)
    np.testing.assert_array_equal(tick.x, [(1 + 0 + 0.25) / 3, NONE])
    np.testing.assert_array_equal(tick.clusters, [3, 0])


def test_a_tick_waits_ten_seconds_and_then_each_stream_for_its_clusters():
    ticks = ticks_of(2)
    ticks.add(np.array([0]), np.arange(20, dtype=np.uint64), np.ones(20))
    ticks.add(np.array([1]), np.arange(7, dtype=np.uint64), np.ones(7))
    assert ticks.close(9.9) is None
    np.testing.assert_array_equal(ticks.close(TICK).x, [1.0, NONE])
    ticks.add(np.array([1]), keys(7), np.zeros(1))
    assert ticks.close(TICK + 9.9) is None
    tick = ticks.close(2 * TICK)
    np.testing.assert_array_equal(tick.x, [NONE, 7 / 8])
    np.testing.assert_array_equal(tick.clusters, [0, 8])
    assert ticks.close(3 * TICK) is None


def test_a_single_tenant_is_taken_after_the_longest_wait():
    ticks = ticks_of(1, longest_seconds=60.0)
    closed = []
    for now in np.arange(1.0, 200.0):
        ticks.add(np.array([0]), keys(1), np.ones(1))
        if ticks.close(now):
            closed.append(now)
    assert closed == [60.0, 120.0, 180.0]


def test_a_clock_set_back_delays_no_tick_by_more_than_its_length():
    ticks = ticks_of(1, fewest=9, longest_seconds=60.0)
    ticks.close(1e9)
    ticks.add(np.array([0]), keys(1), np.ones(1))
    assert ticks.close(1e9 + TICK) is None
    assert ticks.close(50.0) is None
    assert ticks.close(50.0 + TICK) is None
    assert ticks.close(50.0 + 60) is not None


def test_pairs_beyond_the_limit_are_dropped_by_arrival_and_counted():
    ticks = ticks_of(1, pair_limit=100)
    ticks.add(np.array([0]), np.arange(250, dtype=np.uint64), np.r_[np.zeros(100), np.ones(150)])
    tick = ticks.close(TICK)
    assert tick.x[0] == 0.0
    assert tick.clusters[0] == 100
    assert ticks.dropped_values == 150


def test_streams_that_come_and_go_keep_what_the_others_gathered():
    ticks = ticks_of(2, fewest=2)
    ticks.add(np.array([0, 1]), keys(1)[:, None], np.array([[0.0, 0.5]]))
    ticks.close(TICK)
    ticks.add(np.array([1]), keys(2), np.ones(1))
    ticks.follow([stream(5), stream(1)], np.array([2, 2]))
    np.testing.assert_array_equal(ticks.close(2 * TICK).x, [NONE, 0.75])


@pytest.mark.parametrize(
    ("row", "x", "message"),
    [(0, 1.5, r"x must be in \[0, 1\]"), (0, -1, "x must be"), (9, 0.5, r"rows must be in \[0, 1\)")],
)
def test_evidence_that_is_none_is_refused(row, x, message):
    with pytest.raises(ValueError, match=message):
        ticks_of(1).add(np.array([row]), keys(1), np.array([float(x)]))


# Recovery.

ALARM = Alarm("chat", "", 0.0, 0.1, TICKET_SECONDS, (Carrier(stream(3), 0.9), Carrier(stream(4), 0.1)))


def recovering(**settings):
    recovery = Recovery(ALARM, RecoverySettings(**settings))
    streams = [*(stream(number) for number in range(200)), stream(0, "other")]
    recovery.follow(streams, np.full(201, 0.05))
    return recovery


def run(recovery, x_of, ticks, requests=50, start=0):
    for number in range(start, start + ticks):
        if recovery.update(x_of(number), requests, TICK * (number + 1)):
            return number + 1
    return None


def test_an_incident_is_over_after_a_quarter_of_an_hour_and_a_thousand_requests():
    healthy = np.full(201, 0.05)
    assert run(recovering(), lambda _: healthy, 200) == 90
    assert run(recovering(), lambda _: healthy, 2_000, requests=1) == 1_000


def test_what_goes_on_keeps_its_incident_open_and_its_end_starts_the_wait():
    def faulty_for_an_hour(number):
        x = np.full(201, 0.05)
        x[3] = 0.25 if number < 360 else 0.04
        return x

    over = run(recovering(), faulty_for_an_hour, 2_000)
    assert 360 < over <= 360 + 91


def test_other_models_do_not_keep_an_incident_open():
    x = np.full(201, 0.05)
    x[200] = 1.0
    assert run(recovering(), lambda _: x, 200) == 90


def test_a_restored_recovery_goes_on_as_the_original():
    random = np.random.default_rng(0)
    x = random.uniform(0, 0.3, (400, 201))
    recovery = recovering()
    assert run(recovery, x.__getitem__, 37) is None
    other = Recovery(ALARM)
    other.restore(recovery.snapshot())
    run(recovery, x.__getitem__, 300, start=37)
    run(other, x.__getitem__, 300, start=37)
    assert other.snapshot() == recovery.snapshot()

"""Claims on what of the traffic as a whole has changed: its shape within classes, its mixture."""

from dataclasses import replace

import numpy as np
import pytest

from introspan_collector.detect.live.drift import Drift
from introspan_collector.detect.live.frequencies import Frequencies
from introspan_collector.detect.live.window import WINDOW_TICKS
from introspan_collector.detect.reference.builder import Builder
from introspan_collector.detect.reference.placement import Placement, Placer
from introspan_collector.detect.reference.reference import State
from introspan_wire.signals import Kind
from tests.samples import CENTRES, IDENTITY, sample


@pytest.fixture(scope="module")
def reference():
    builder = Builder(IDENTITY)
    builder.add(sample(np.random.default_rng(0), 3000))
    return builder.reference(State.FROZEN, 0)


def ticks(detector, reference, make, count=40):
    """The mean of X over ticks of requests, NaN before there is any."""
    placer, means = Placer(reference), []
    for tick in range(count):
        one = make(tick)
        found = detector.evidence(one, placer.place(one))
        means.append(
            np.nanmean(found.x, axis=0) if np.isfinite(found.x).any() else np.full(len(found.bound), np.nan)
        )
        if hasattr(detector, "tick"):
            detector.tick()
    return np.array(means), found


def test_healthy_traffic_stays_below_the_bound_of_drift(reference):
    rng = np.random.default_rng(1)
    means, found = ticks(Drift(reference, Kind.PROMPT), reference, lambda _: sample(rng, 50))
    assert np.isnan(means[0])
    assert np.nanmean(means) < found.bound[0] == 0.5


@pytest.mark.thorough
def test_the_bound_of_drift_holds_in_the_direction_of_the_references_own_error():
    """The worst that a direction can be, which bets that follow healthy traffic tend to."""
    highest = []
    for i in range(12):
        rng = np.random.default_rng([8, i])
        builder = Builder(IDENTITY, seed=i)
        builder.add(sample(rng, 700))
        of = builder.reference(State.FROZEN, 0)
        drift = Drift(of, Kind.PROMPT)
        live = sample(rng, 6000)
        placement = Placer(of).place(live)
        drift.evidence(live, placement)
        drift.tick()
        x = drift.evidence(live, placement).x
        highest.append(np.nanmean(x))
    assert max(highest) <= 0.5
    assert np.isfinite(x).mean() > 0.5


def test_a_class_of_few_rows_does_not_blunt_the_others():
    rng = np.random.default_rng(9)

    def shares(common):
        rare = (1 - common) / 3
        builder = Builder(IDENTITY)
        builder.add(sample(rng, 3000, class_id=rng.choice(4, 3000, p=[common, rare, rare, rare])))
        of = builder.reference(State.FROZEN, 0)
        drift = Drift(of, Kind.PROMPT)

        def narrower(_):
            projection = (0.2 * rng.standard_normal((50, 64)) + CENTRES[0]).astype(np.float32)
            return sample(rng, 50, class_id=np.zeros(50, np.int64), projection=projection)

        means, _ = ticks(drift, of, narrower, count=15)
        return np.nanmean(means[5:])

    assert shares(0.94) > 0.95 * shares(0.25)


def test_a_changed_shape_within_the_classes_is_beyond_it(reference):
    rng = np.random.default_rng(2)
    drift = Drift(reference, Kind.PROMPT)

    def narrower(_):
        classes = rng.integers(0, 4, 50)
        projection = (0.2 * rng.standard_normal((50, 64)) + CENTRES[classes]).astype(np.float32)
        return sample(rng, 50, class_id=classes, projection=projection)

    means, found = ticks(drift, reference, narrower)
    assert np.nanmean(means[5:]) > found.bound[0]
    assert drift.distance.value > drift.distance.threshold


def looks(drift, placer, make, count):
    """Distance and threshold of windows that share no request."""
    found = []
    for tick in range(count * WINDOW_TICKS):
        one = make()
        drift.evidence(one, placer.place(one))
        if (tick + 1) % WINDOW_TICKS == 0:
            found.append(drift.distance)
        drift.tick()
    return np.array(found)


@pytest.mark.parametrize("requests", [2, 50])
def test_healthy_windows_stay_within_what_chance_makes_of_them_and_not_far_within(reference, requests):
    rng = np.random.default_rng(11)
    drift, placer = Drift(reference, Kind.PROMPT), Placer(reference)
    found = looks(drift, placer, lambda: sample(rng, requests), 60)
    assert (found[:, 0] <= found[:, 1]).all()
    assert (found[:, 0] / found[:, 1]).mean() > 0.4


def test_what_the_reference_itself_is_off_by_is_no_drift_however_many_requests_come():
    rng = np.random.default_rng(14)
    builder = Builder(IDENTITY)
    builder.add(sample(rng, 400))
    small = builder.reference(State.PROVISIONAL, 0)
    ((distance, threshold),) = looks(Drift(small, Kind.PROMPT), Placer(small), lambda: sample(rng, 2000), 1)
    assert 0.5 * threshold < distance <= threshold


def test_more_requests_of_the_same_callers_make_no_smaller_distance_certain(reference):
    rng = np.random.default_rng(12)
    placer = Placer(reference)

    def threshold(callers):
        drift = Drift(reference, Kind.PROMPT)
        ((_, found),) = looks(
            drift, placer, lambda: sample(rng, 60, cluster=rng.integers(0, callers, 60).astype(np.uint64)), 1
        )
        return found

    few, many = threshold(20), threshold(2**60)
    assert few > 2 * many
    assert threshold(1) > 1.0


def test_the_threshold_comes_back_with_the_window(reference):
    rng = np.random.default_rng(13)
    drift, again = Drift(reference, Kind.PROMPT), Drift(reference, Kind.PROMPT)
    ticks(drift, reference, lambda _: sample(rng, 20), 3)
    again.restore(drift.snapshot())
    assert again.distance == drift.distance
    assert 0 < again.distance.value < again.distance.threshold


def test_another_mixture_of_the_same_classes_does_not_drift_but_shows_in_the_frequencies(reference):
    rng = np.random.default_rng(3)

    def one_class(_):
        return sample(rng, 50, class_id=np.full(50, 2))

    means, found = ticks(Drift(reference, Kind.PROMPT), reference, one_class)
    assert np.nanmean(means) < found.bound[0]
    means, found = ticks(Frequencies(reference), reference, one_class)
    moved = {
        stream.side
        for stream, x, m in zip(found.streams, means.mean(axis=0), found.bound, strict=True)
        if x > m
    }
    assert "more" in moved


def test_healthy_traffic_is_within_the_bounds_of_every_class(reference):
    rng = np.random.default_rng(4)
    means, found = ticks(Frequencies(reference), reference, lambda _: sample(rng, 200))
    # A class that one of 3,000 requests is of is not seen again at once: nearly all are not of it.
    assert (means.mean(axis=0) <= np.maximum(found.bound, np.where(found.bound > 0.999, 1.0, 0.0))).all()


def test_a_request_outside_its_nearest_class_is_not_of_it_in_the_reference_either(reference):
    population = reference.populations[Kind.PROMPT]
    far = replace(population, outside=np.arange(len(population)) % 2 == 0)
    odd = replace(reference, populations={**reference.populations, Kind.PROMPT: far})
    placement = Placement(far.class_id, far.outside, np.zeros(len(far), np.intp), np.zeros(len(far)))
    found = Frequencies(odd).evidence(sample(np.random.default_rng(6), len(far)), placement)
    assert (np.nanmean(found.x, axis=0) <= found.bound).all()


def test_requests_outside_all_classes_are_counted_as_such(reference):
    rng = np.random.default_rng(5)

    def novel(_):
        return sample(rng, 50, projection=(rng.standard_normal((50, 64)) - 30).astype(np.float32))

    means, found = ticks(Frequencies(reference), reference, novel)
    assert found.streams[-1].side == "outside"
    assert means[:, -1].mean() > 0.9 > found.bound[-1]

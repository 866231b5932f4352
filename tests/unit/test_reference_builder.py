"""How a reference comes about: from enough traffic, over enough time, that did not change meanwhile."""

import numpy as np
import pytest

from introspan_collector.detect.reference.builder import KINDS, Builder, Limits
from introspan_collector.detect.reference.distance import cdf_distance
from introspan_collector.detect.reference.file import content_hash
from introspan_collector.detect.reference.reference import State
from introspan_wire.signals import Kind
from tests.samples import HOUR_NANO, IDENTITY, START_UNIX_NANO, sample


def built(*samples, limits=None, seed=0):
    builder = Builder(IDENTITY, limits, seed=seed)
    for one in samples:
        builder.add(one)
    return builder


@pytest.mark.parametrize(
    ("clusters", "hours", "reached"),
    [
        (499, 30, None),
        (500, 0.1, State.PROVISIONAL),
        (2000, 23, State.PROVISIONAL),
        (1999, 30, State.PROVISIONAL),
        (2000, 24.1, State.FROZEN),
    ],
)
def test_the_state_follows_clusters_and_hours(clusters, hours, reached):
    rng = np.random.default_rng(1)
    ends = sample(rng, 2, hours=(0, 1))
    ends.time_unix_nano[:] = START_UNIX_NANO + np.array([0, int(hours * HOUR_NANO)], np.uint64)
    progress = built(ends, sample(rng, clusters - 2, hours=(0, hours))).progress()
    assert progress.counts.clusters == clusters
    assert progress.counts.hours == pytest.approx(hours)
    assert progress.reached is reached


def test_limits_can_be_lowered():
    rng = np.random.default_rng(2)
    builder = built(sample(rng, 40, hours=(0, 0.1)), limits=Limits(10, 40, 0.0))
    assert builder.progress().reached is State.FROZEN
    assert builder.objections("") == ()


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ((0, 10, 1.0), "provisional_clusters must be >= 1"),
        ((11, 10, 1.0), "at most frozen_clusters = 10"),
        ((1, 10, -1.0), "frozen_hours must be >= 0, got -1"),
    ],
)
def test_limits_that_cannot_be_meant_are_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        Limits(*limits)


def test_too_little_traffic_and_a_canary_that_deviates_are_objections():
    rng = np.random.default_rng(3)
    objections = built(sample(rng, 700, hours=(0, 2))).objections("canaries are not clean")
    assert objections[0] == "700 of 2000 clusters"
    assert objections[1].endswith("of 24 hours")
    assert objections[2:] == ("canaries are not clean",)


@pytest.mark.thorough
def test_healthy_traffic_is_rarely_objected_to_also_when_its_mixture_changes():
    objected = 0
    for i in range(40):
        rng = np.random.default_rng([4, i])
        day = sample(rng, 1500, class_id=rng.choice(4, 1500, p=[0.4, 0.3, 0.2, 0.1]), hours=(0, 12))
        night = sample(rng, 1500, class_id=rng.choice(4, 1500, p=[0.2, 0.2, 0.3, 0.3]), hours=(12, 25))
        objected += bool(built(day, night, seed=i).objections(""))
    assert objected <= 2


def test_halves_are_compared_again_as_traffic_comes():
    rng = np.random.default_rng(11)
    builder = built(sample(rng, 1500, hours=(0, 12)), limits=Limits(1, 1, 0.0))
    assert builder.objections("") == ()
    second = sample(rng, 1500, hours=(12, 25))
    second.features[:, 5] += 1.0
    builder.add(second)
    assert len(builder.objections("")) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_shift_in_the_later_half_is_found_and_named(kind):
    rng = np.random.default_rng(5)
    first, second = sample(rng, 1500, hours=(0, 12), kind=kind), sample(rng, 1500, hours=(12, 25), kind=kind)
    second.features[:, 5] += 1.0
    (objection,) = built(first, second).objections("")
    assert objection == (
        f"the later half differs from the earlier one in 1 features: {kind} residual.log_rms of layer 5"
    )


def test_traffic_that_only_the_later_half_has_is_found_although_it_would_be_a_class_of_its_own():
    rng = np.random.default_rng(6)
    first = sample(rng, 1500, hours=(0, 12), class_id=rng.integers(0, 3, 1500))
    second = sample(rng, 1500, hours=(12, 25), class_id=np.full(1500, 3))
    (objection,) = built(first, second).objections("")
    assert "residual.projection" in objection


def test_a_request_that_is_read_again_changes_nothing_but_the_count():
    rng = np.random.default_rng(7)
    one = sample(rng, 900)
    once, twice = built(one), built(one, one)
    assert twice.progress().counts.clusters == 900
    first, second = (builder.reference(State.FROZEN, 0).populations[Kind.PROMPT] for builder in (once, twice))
    np.testing.assert_array_equal(first.features, second.features)


def test_a_restored_builder_goes_on_as_if_nothing_had_happened():
    rng = np.random.default_rng(8)
    batches = []
    for hour in range(6):
        prompts = sample(rng, 400, hours=(hour, hour + 1))
        batches += [prompts, sample(rng, 400, kind=Kind.DECODED, seed=prompts.seed, hours=(hour, hour + 1))]
    whole = built(*batches)
    restored = Builder(IDENTITY)
    restored.restore(built(*batches[:5]).snapshot())  # between prompts and their decoded rows
    for one in batches[5:]:
        restored.add(one)
    assert restored.progress() == whole.progress()
    hashes = {content_hash(builder.reference(State.FROZEN, 7)) for builder in (whole, restored)}
    assert len(hashes) == 1


def test_a_damaged_snapshot_is_refused():
    data = built(sample(np.random.default_rng(9), 10)).snapshot()
    with pytest.raises(ValueError, match="damaged"):
        Builder(IDENTITY).restore(data[:-1] + b"?")


def test_there_is_no_reference_of_nothing():
    with pytest.raises(ValueError, match="no traffic of m was collected"):
        Builder(IDENTITY).reference(State.PROVISIONAL, 0)


def test_the_distance_of_distributions_is_that_of_scipy():
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(10)
    first, second = rng.standard_normal((700, 3)), rng.standard_normal((500, 3)) + 0.1
    first[:, 1], second[:, 1] = np.round(first[:, 1]), np.round(second[:, 1])
    first[:100, 2] = second[:50, 2] = np.nan
    distance, chance = cdf_distance(first.astype(np.float32), second.astype(np.float32))
    for i in range(3):
        a, b = (part[~np.isnan(part[:, i]), i] for part in (first, second))
        exact = ks_2samp(a, b)
        assert distance[i] == pytest.approx(exact.statistic)
        assert exact.pvalue * 0.9 <= chance[i] <= max(2 * exact.pvalue, 1.0)
    nothing = np.full((3, 1), np.nan, np.float32)
    assert np.isnan(cdf_distance(nothing, first[:, :1].astype(np.float32))[0]).all()

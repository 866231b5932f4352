"""Requests more unusual than every healthy one."""

from dataclasses import replace

import numpy as np
import pytest

from introspan_collector.detect.live.extremes import Extremes
from introspan_collector.detect.reference.builder import Builder
from introspan_collector.detect.reference.placement import Placer
from introspan_collector.detect.reference.reference import CHANCE, State
from introspan_collector.detect.sample import Feature
from introspan_wire.signals import Kind
from tests.samples import IDENTITY, sample


def reference(*samples, seed=0, **options):
    builder = Builder(IDENTITY, seed=seed, **options)
    for one in samples:
        builder.add(one)
    return builder.reference(State.FROZEN, 0)


def evidence(of, one):
    """That of features alone, which comes first."""
    found = Extremes(of).evidence(one, Placer(of).place(one))
    return replace(found, streams=found.streams[:3], bound=found.bound[:3], x=found.x[:, :3])


def test_requests_are_scored_beyond_the_rows_that_the_reference_keeps():
    rng = np.random.default_rng(1)
    of = reference(sample(rng, 30_000))
    population = of.populations[Kind.PROMPT]
    assert len(population) == 4096
    assert len(population.scores) == 20_000
    found = evidence(of, sample(rng, 100))
    assert found.bound[0] < 20 / 20_000
    assert [stream[3:] for stream in found.streams] == [
        ("extremes", "prompt", "", -1, "beyond all"),
        ("extremes", "prompt", "", -1, "beyond all but 7"),
        ("extremes", "prompt", "", -1, "beyond all but 63"),
    ]
    assert found.bound[1] < 3 * found.bound[0]


@pytest.mark.thorough
def test_the_bound_holds_for_nearly_all_references_and_the_nominal_rate_for_a_third():
    over = []
    for i in range(50):
        rng = np.random.default_rng([2, i])
        of = reference(sample(rng, 300), seed=i)
        found = evidence(of, sample(rng, 6000))
        count = len(of.populations[Kind.PROMPT].scores)
        share = found.x.mean(axis=0)
        over.append((*(share > found.bound), share[0] > 1 / (count + 1)))
    *bounds, nominal = np.mean(over, axis=0)
    assert max(bounds) <= CHANCE
    assert 0.15 < nominal < 0.6


def test_one_request_in_a_hundred_is_found_by_a_feature_that_hardly_moves_the_bank():
    rng = np.random.default_rng(3)
    of = reference(sample(rng, 8000))
    live = sample(rng, 20_000)
    faulty = rng.random(20_000) < 0.008
    live.features[faulty, 5] += 12
    found = evidence(of, live)
    assert found.x[faulty].mean() > 0.95
    assert found.x[:, 0].mean() > 3 * found.bound[0]
    score, worst = Extremes(of).worst(live, Placer(of).place(live))
    assert all(worst[i] == Feature("residual.log_rms", 5) for i in np.flatnonzero(faulty & (score > 6)))


def test_a_feature_that_is_constant_in_most_requests_does_not_hide_the_others():
    rng = np.random.default_rng(4)

    def values(count):
        drawn = rng.standard_normal((count, 3))
        drawn[:, 0] = np.where(rng.random(count) < 0.03, drawn[:, 0], 0.0)
        return drawn

    of = reference(sample(rng, 4000, values(4000)))
    live = values(400)
    live[:, 1] = 30.0
    assert evidence(of, sample(rng, 400, live)).x.mean() > 0.95


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_numbers_neither_raise_the_score_nor_spoil_the_reference(broken):
    rng = np.random.default_rng(5)
    one = sample(rng, 2000)
    one.features[::3, 2] = broken
    of = reference(one)
    assert np.isfinite(of.populations[Kind.PROMPT].scores).all()
    live = sample(rng, 300)
    live.features[:, 2] = broken
    assert evidence(of, live).x[:, 0].mean() < 0.02


def test_the_largest_number_there_is_counts_as_extreme():
    rng = np.random.default_rng(8)
    of = reference(sample(rng, 2000, rng.standard_normal((2000, 2)) * 1e-30))
    live = sample(rng, 3, np.full((3, 2), np.finfo(np.float32).max))
    assert evidence(of, live).x.tolist() == [[1.0] * 3] * 3


def test_a_request_without_values_is_no_evidence():
    rng = np.random.default_rng(6)
    of = reference(sample(rng, 300))
    nothing = sample(rng, 4, np.full((4, 8), np.nan))
    assert np.isnan(evidence(of, nothing).x).all()


@pytest.mark.parametrize(
    "values", [np.full((1, 2), 1.0), np.full((2, 2), 1.0), np.full((700, 2), 1.0), np.zeros((9, 0))]
)
def test_a_reference_without_variation_gives_no_evidence(values):
    rng = np.random.default_rng(7)
    of = reference(sample(rng, len(values), values))
    found = evidence(of, sample(rng, 5, np.full((5, values.shape[1]), 2.0)))
    assert np.isnan(found.x).all()
    assert found.bound.tolist() == [1.0] * 3


def test_a_feature_with_a_heavy_tail_does_not_hide_what_is_odd_in_the_others():
    rng = np.random.default_rng(9)

    def values(count):
        return np.column_stack([rng.standard_t(2, count), rng.standard_normal((count, 4))])

    of = reference(sample(rng, 8000, values(8000)))
    live = values(2000)
    live[:, 3] = 6.0  # one in 10⁹; of the first feature one in 50 is as far out
    assert evidence(of, sample(rng, 2000, live)).x[:, 0].mean() > 0.9


def test_half_of_the_requests_are_fitted_and_half_calibrated():
    population = reference(sample(np.random.default_rng(10), 2000)).populations[Kind.PROMPT]
    assert population.fit.mean() == pytest.approx(0.5, abs=0.05)
    assert len(population.scores) == np.count_nonzero(~population.fit)


def test_a_prompt_farther_from_its_class_than_healthy_ones_is_extreme_whatever_its_signals_are():
    rng = np.random.default_rng(11)
    of = reference(sample(rng, 8000))
    far = sample(rng, 400)
    far.projection[:] += 2.0 * rng.choice([-1, 1], far.projection.shape)
    for one, least, most in ((sample(rng, 4000), 0.0, 0.002), (far, 0.95, 1.0)):
        found = Extremes(of).evidence(one, Placer(of).place(one))
        assert [(stream.signal, stream.kind) for stream in found.streams[3:]] == [
            ("class.none", "prompt")
        ] * 3
        assert least <= found.x[:, 3].mean() <= most


def test_decoded_rows_have_no_distance_of_their_own():
    rng = np.random.default_rng(12)
    of = reference(sample(rng, 1000, kind=Kind.DECODED))
    one = sample(rng, 20, kind=Kind.DECODED)
    assert Extremes(of).evidence(one, Placer(of).place(one)).x.shape == (20, 3)

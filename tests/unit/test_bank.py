"""Ranks of requests in a reference, and the bounds on their means."""

import numpy as np
import pytest
from scipy.stats import kstest

from introspan_collector.detect.live.bank import SIDES, Bank, bounds
from introspan_collector.detect.live.extremes import Extremes
from introspan_collector.detect.live.ranks import Ranks
from introspan_collector.detect.reference.builder import Builder
from introspan_collector.detect.reference.placement import Placer
from introspan_collector.detect.reference.reference import CHANCE, State
from introspan_collector.detect.sequential.budget import shared_out
from introspan_collector.detect.sequential.e_detector import TICKET_SECONDS, EDetector
from introspan_wire.signals import Kind
from tests.samples import IDENTITY, sample

GRID = (np.arange(20_000) + 0.5) / 20_000


def reference(*samples, seed=0):
    builder = Builder(IDENTITY, seed=seed)
    for one in samples:
        builder.add(one)
    return builder.reference(State.FROZEN, 0)


def evidence(of, one):
    return Bank(of).evidence(one, Placer(of).place(one))


def one_class(rng, values, **fields):
    return sample(rng, len(values), values, class_id=np.zeros(len(values), int), **fields)


def on_grid(of, rng, columns):
    """Means of X over the uniform distribution on [0, 1], as exact as a grid is, float64 [4, F]."""
    # Requests without a projection: all in the cell of all classes, like a grid over one population.
    nowhere = np.full((len(GRID), 64), np.nan, np.float32)
    live = one_class(rng, np.repeat(GRID[:, None], columns, axis=1), projection=nowhere)
    return evidence(of, live).x.mean(axis=0).reshape(len(SIDES), columns)


def test_u_of_healthy_requests_is_uniform_also_where_values_are_tied():
    rng = np.random.default_rng(1)

    def values(count):
        normal = rng.standard_normal(count)
        return np.stack([normal, np.round(normal), np.full(count, 3.0), np.maximum(normal, 0)], axis=1)

    of = reference(one_class(rng, values(4000)))
    live = one_class(rng, values(4000))
    u = Ranks(of.populations[Kind.PROMPT]).u(live, Placer(of).place(live).cell)
    for i, column in enumerate(u.T):
        assert kstest(column, "uniform").pvalue > 1e-4, live.names[i]
    assert abs(np.corrcoef(u[:, 1], u[:, 2])[0, 1]) < 0.06  # each feature breaks its ties by itself


def test_a_request_has_the_same_u_in_every_batch():
    rng = np.random.default_rng(2)
    of = reference(sample(rng, 600))
    live = sample(rng, 50)
    whole = evidence(of, live).x
    single = [evidence(of, live.take(np.array([i]))).x for i in range(50)]
    np.testing.assert_array_equal(whole, np.concatenate(single))


@pytest.mark.parametrize("values_of", [lambda x: x, lambda x: np.floor(x * 25) / 25, lambda x: x > 0.93])
def test_a_bound_fails_for_at_most_the_stated_share_of_references_and_without_tolerance_for_half(values_of):
    rng = np.random.default_rng(3)
    chance, size, count = 0.2, 700, 400
    tail, mean = bounds(size, chance)
    drawn = values_of(rng.random((count, size))).astype(np.float64)
    drawn.sort(axis=1)
    live = values_of(GRID).astype(np.float64)
    below = np.stack([np.searchsorted(row, live, "left") for row in drawn]) / size
    upto = np.stack([np.searchsorted(row, live, "right") for row in drawn]) / size
    inside = np.where(upto > below, upto - below, 1.0)
    high = np.where(upto > below, np.clip((upto - 0.95) / inside, 0, 1), below > 0.95).mean(axis=1)
    middle = ((below + upto) / 2).mean(axis=1)
    allowed = chance * count + 3 * np.sqrt(chance * count)
    assert np.count_nonzero(high > tail) <= allowed
    assert np.count_nonzero(middle > mean) <= allowed
    assert np.count_nonzero(high > 0.05) > 0.3 * count
    assert np.count_nonzero(middle > 0.5) > 0.3 * count


@pytest.mark.thorough
def test_all_bounds_of_a_reference_hold_for_nearly_all_references_and_none_would_without_tolerance():
    columns, drawn = 6, 40
    over = np.zeros((drawn, 2), bool)
    for i in range(drawn):
        rng = np.random.default_rng([4, i])
        of = reference(one_class(rng, rng.random((600, columns))), seed=i)
        found = on_grid(of, rng, columns)
        size = len(of.populations[Kind.PROMPT])
        bound = np.repeat(bounds(size, of.chance), 2)[:, None]
        nominal = np.array([0.05, 0.05, 0.5, 0.5])[:, None]
        over[i] = np.any(found > bound), np.any(found > nominal)
    assert over[:, 0].mean() <= CHANCE
    assert over[:, 1].mean() > 0.95


def test_one_bound_holds_for_every_mixture_of_cells_of_different_sizes():
    rng = np.random.default_rng(5)
    classes = np.repeat([0, 1, 2, 3], [1700, 1000, 700, 600])
    of = reference(sample(rng, 4000, class_id=classes))
    assert len(np.unique(Ranks(of.populations[Kind.PROMPT]).sizes)) > 2
    for alone in range(4):
        live = sample(rng, 4000, class_id=np.full(4000, alone))
        found = evidence(of, live)
        assert found.x.min() >= 0
        assert found.x.max() <= 1
        assert np.all(found.x.mean(axis=0) <= found.bound)


def test_tolerance_is_about_a_fortieth_at_two_thousand_requests():
    # 120 features of two kinds, four sides, a few cells
    tail, mean = bounds(2000, 0.01 / 2000)
    assert 0.070 < tail < 0.078
    assert 0.530 < mean < 0.535


@pytest.mark.parametrize(("side", "shift"), [("high", 2.0), ("low", -2.0), ("up", 1.0), ("down", -1.0)])
def test_a_shift_exceeds_the_bound_on_its_side_alone(side, shift):
    rng = np.random.default_rng(6)
    of = reference(sample(rng, 2500))
    live = sample(rng, 500)
    values = live.features.copy()
    values[:, 3] += shift
    found = evidence(of, sample(rng, 500, values, projection=live.projection))
    over = {
        (s.layer, s.side)
        for s, x, m in zip(found.streams, found.x.mean(axis=0), found.bound, strict=True)
        if x > m
    }
    assert (3, side) in over
    assert {layer for layer, _ in over} == {3}
    assert {s for _, s in over} <= ({"high", "up"} if shift > 0 else {"low", "down"})


def test_what_is_not_measured_is_no_evidence():
    rng = np.random.default_rng(7)
    values = rng.standard_normal((700, 3))
    values[:, 1] = np.nan
    of = reference(one_class(rng, values))
    live = one_class(rng, rng.standard_normal((40, 3)))
    live.features[:5, 0] = np.nan
    x = evidence(of, live).x.reshape(40, 4, 3)
    assert np.isnan(x[:, :, 1]).all()  # the reference never saw it
    assert np.isnan(x[:5, :, 0]).all()
    assert np.isfinite(x[5:, :, 0]).all()
    assert np.isfinite(x[:, :, 2]).all()
    assert evidence(of, live).bound.reshape(4, 3)[:, 1].tolist() == [1.0] * 4


def test_infinite_values_are_the_most_extreme_ones():
    rng = np.random.default_rng(8)
    of = reference(one_class(rng, rng.standard_normal((700, 2))))
    live = one_class(rng, np.array([[np.inf, -np.inf]]))
    u = Ranks(of.populations[Kind.PROMPT]).u(live, Placer(of).place(live).cell)
    assert u.tolist() == [[1.0, 0.0]]


def test_a_constant_signal_is_no_evidence_and_its_change_is():
    rng = np.random.default_rng(9)
    of = reference(one_class(rng, np.ones((900, 1))))
    still = evidence(of, one_class(rng, np.ones((900, 1))))
    assert np.all(still.x.mean(axis=0) <= still.bound)
    moved = evidence(of, one_class(rng, np.full((900, 1), np.float32(1.0000001))))
    assert moved.x.mean(axis=0)[0] > 5 * moved.bound[0]


def test_minus_zero_is_zero():
    rng = np.random.default_rng(10)
    of = reference(one_class(rng, np.zeros((900, 1))))
    found = evidence(of, one_class(rng, -np.zeros((900, 1))))
    assert np.all(found.x.mean(axis=0) <= found.bound)


def test_features_are_found_by_name_not_by_place():
    rng = np.random.default_rng(11)
    of = reference(sample(rng, 800))
    live = sample(rng, 30)
    order = np.array([7, 0, 3, 1, 2, 4, 5])
    fewer = sample(
        np.random.default_rng(0),
        30,
        live.features[:, order],
        names=tuple(live.names[i] for i in order),
        projection=live.projection,
        length=live.length,
        seed=live.seed,
    )
    whole, part = evidence(of, live), evidence(of, fewer)
    assert part.streams == whole.streams
    missing = np.array([stream.layer == 6 for stream in whole.streams])
    np.testing.assert_array_equal(part.x[:, ~missing], whole.x[:, ~missing])
    assert np.isnan(part.x[:, missing]).all()


@pytest.mark.parametrize("count", [1, 2, 3, 17])
def test_a_tiny_reference_gives_wide_bounds_and_works(count):
    rng = np.random.default_rng(12)
    of = reference(sample(rng, count))
    found = evidence(of, sample(rng, 100))
    assert np.isfinite(found.x).all()
    assert np.all((found.bound > 0.2) & (found.bound <= 1))
    assert np.all(found.x.mean(axis=0) <= found.bound)


def alarms(of, rng, ticks, *, tolerant=True):
    """Alarms of bank and extremes over so many ticks of 12 clusters, the mixture of classes changing every hour."""
    detectors, placer = (Bank(of), Extremes(of)), Placer(of)
    sequential = EDetector(TICKET_SECONDS)
    raised = 0
    for tick in range(ticks):
        shares = [0.7, 0.1, 0.1, 0.1] if tolerant and tick // 360 % 2 else [0.25] * 4
        one = sample(rng, 12, class_id=rng.choice(4, 12, p=shares))
        placement = placer.place(one)
        found = [detector.evidence(one, placement) for detector in detectors]
        if not sequential.streams:
            streams = found[0].streams + found[1].streams
            bound = np.concatenate([evidence.bound for evidence in found])
            if not tolerant:
                bound[:32] = np.repeat([0.05, 0.5], 16)
            sequential.follow(streams, bound, shared_out(streams, bound))
        x = np.concatenate([evidence.x.mean(axis=0) for evidence in found])
        raised += len(sequential.update(x, 10.0 * tick))
    return raised


@pytest.mark.thorough
def test_healthy_hours_of_a_changing_mixture_raise_no_ticket_and_without_tolerance_they_do():
    rng = np.random.default_rng(13)
    # Five hours at a ticket a day: a false one has a chance of at most 0.2, and is far rarer in fact.
    assert alarms(reference(sample(rng, 4000)), rng, 900) == 0
    assert alarms(reference(sample(rng, 600)), rng, 900) == 0
    # One cell, so that no bound is lowered for another cell.
    one_cell = reference(
        sample(rng, 600, projection=np.full((600, 64), np.nan, np.float32), length=np.full(600, 9))
    )
    assert alarms(one_cell, rng, 1800, tolerant=False) > 2

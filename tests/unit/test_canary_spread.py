"""How far a round is from healthy ones over all of its numbers together: many small shifts, and what chance makes."""

import numpy as np
import pytest

from introspan_collector.detect.canary.baseline import build
from introspan_collector.detect.canary.comparison import compare
from introspan_collector.detect.canary.spread import deviation, of_round, pooled_squares, without_own
from tests.canary_rounds import Fault, Model

LEAST = 0.05


@pytest.fixture
def values():
    """Twenty rounds of numbers of all sizes, one without spread and one that some rounds lack."""
    rng = np.random.default_rng(3)
    found = rng.normal(size=(20, 3, 7)) * 10.0 ** rng.integers(-2, 2, (3, 7))
    found[:, 0, 0] = 5.0
    found[4, 1, 1] = np.nan
    return found


def test_a_round_is_held_against_all_others_as_if_it_were_new(values):
    found = without_own(values, LEAST)
    for i in range(len(values)):
        others = np.delete(values, i, axis=0)
        one = values[i].copy()
        one[1, 1] = np.nan  # not known in every round
        alone = of_round(one, others.mean(axis=0), deviation(others, LEAST))
        assert alone.total[0] == pytest.approx(found.total[i])
        assert alone.count[0] == found.count[i] == 20


def test_numbers_that_never_differed_count_in_deviations_of_rounding(values):
    expected = np.sqrt(1 + 1 / 20)
    assert deviation(values, LEAST)[0, 0] == pytest.approx(LEAST * expected)
    assert np.isnan(deviation(values, LEAST)[1, 1])
    one = of_round(values.mean(axis=0) + np.eye(3, 7) * LEAST, values.mean(axis=0), deviation(values, LEAST))
    assert one.total[0] >= 1 / expected**2


def test_what_chance_makes_of_all_numbers_together_is_near_one():
    rng = np.random.default_rng(4)
    healthy, new = rng.normal(size=(64, 4000)), rng.normal(size=(200, 4000))
    baseline = pooled_squares([without_own(healthy, 0.0)])
    mean, spread = healthy.mean(axis=0), deviation(healthy, 0.0)
    found = np.array([pooled_squares([of_round(one, mean, spread)])[0] for one in new])
    assert baseline == pytest.approx(1.0, abs=0.06)
    assert found.mean() == pytest.approx(baseline.mean(), abs=0.005)
    assert np.mean(found > baseline.max()) < 0.07


def test_a_shift_too_small_for_any_one_number_is_told_by_all_of_them_beside_loud_ones():
    rng = np.random.default_rng(5)
    size = np.where(np.arange(4000) < 40, 100.0, 0.1)
    healthy, changed = rng.normal(size=(64, 4000)) * size, (rng.normal(size=(50, 4000)) + 0.4) * size
    mean, spread = healthy.mean(axis=0), deviation(healthy, 0.0)
    limit = pooled_squares([without_own(healthy, 0.0)]).max()
    assert all(pooled_squares([of_round(one, mean, spread)])[0] > limit for one in changed)
    plain = np.sqrt(((healthy - mean) ** 2).mean(axis=1)).max()
    assert np.mean(np.sqrt(((changed - mean) ** 2).mean(axis=1)) > plain) < 0.2


def test_a_head_that_changed_a_little_is_ranked_above_every_healthy_round_where_no_distance_alone_shows_it():
    model = Model("bfloat16")
    baseline = build(model.rounds(64))
    healthy = [compare(baseline, one) for one in model.rounds(20, 7)]
    changed = [compare(baseline, one) for one in model.rounds(20, 8, fault=Fault(head=0.01))]
    assert max(one.ratio for one in healthy) < 1.2
    assert min(one.ratio for one in changed) > max(baseline.distances[-1], 1.3)
    assert min(one.outputs_ratio for one in changed) > 1.3, "a head moves no states"
    assert max(one.output_ratio for one in changed) < 1.0
    assert not any(one.deviates for one in changed)

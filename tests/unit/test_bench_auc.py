import numpy as np
import pytest
from scipy.stats import beta

from bench.faults.auc import auc, interval, share


def test_what_is_always_higher_is_told_apart_and_what_is_the_same_is_not() -> None:
    healthy = np.arange(10.0)
    assert auc(healthy, healthy + 100) == 1.0
    assert auc(healthy, healthy - 100) == 0.0
    assert auc(healthy, healthy) == 0.5


def test_it_is_the_share_of_pairs_in_the_right_order_with_ties_half() -> None:
    random = np.random.default_rng(1)
    healthy, changed = random.integers(0, 6, 40).astype(float), random.integers(2, 8, 25).astype(float)
    pairs = [(c > h) + 0.5 * (c == h) for h in healthy for c in changed]
    assert auc(healthy, changed) == pytest.approx(np.mean(pairs))


def test_a_score_that_is_no_number_is_the_highest() -> None:
    assert auc(np.array([1.0, 2.0]), np.array([np.nan])) == 1.0


def test_an_interval_holds_the_mean_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    held = 0
    for trial in range(200):
        values = random.normal(size=60)
        low, high = interval(60, lambda drawn, values=values: float(values[drawn].mean()), trial, 400)
        held += low <= 0.0 <= high
    # 95 of 100, less what percentiles of 60 values fall short of it.
    assert 0.89 <= held / 200 <= 0.985


def test_a_difference_is_paired_and_so_as_sure_as_it_is() -> None:
    random = np.random.default_rng(3)
    one = random.normal(size=50)
    other = one + 0.01
    low, high = interval(50, lambda drawn: float((other[drawn] - one[drawn]).mean()), 0, 400)
    assert high - low < 1e-9
    assert low == pytest.approx(0.01)


@pytest.mark.parametrize("successes", [[True] * 30, [False] * 30])
def test_where_all_succeed_or_none_the_interval_is_the_exact_one(successes: list[bool]) -> None:
    low, high = share(successes, seed=0)
    if all(successes):
        assert (low, high) == (pytest.approx(beta.ppf(0.025, 30, 1)), 1.0)
    else:
        assert (low, high) == (0.0, pytest.approx(beta.ppf(0.975, 1, 30)))


def test_an_interval_of_a_share_is_around_it() -> None:
    low, high = share([True] * 20 + [False] * 10, seed=0)
    assert 0.45 < low < 2 / 3 < high < 0.85

"""Which requests are measured, and what becomes of that when a worker is over its budget or told to do less."""

import numpy as np
import pytest

from introspan.admission import Admission

WINDOW_SECONDS = 10.0


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def a_window(admission, clock, observations):
    clock.now += WINDOW_SECONDS
    admission.emitted(observations)


def test_over_the_budget_the_threshold_falls_to_what_the_budget_allows():
    clock = Clock()
    admission = Admission(0.8, row_budget=50, clock=clock)
    a_window(admission, clock, 2_000)
    assert admission.probability == pytest.approx(0.8 * 500 / 2_000)


def test_within_a_window_nothing_moves():
    clock = Clock()
    admission = Admission(1.0, row_budget=50, clock=clock)
    clock.now += WINDOW_SECONDS / 2
    admission.emitted(10_000)
    assert admission.probability == 1.0


def test_below_the_budget_the_threshold_rises_by_a_quarter_a_window_and_never_above_what_was_asked_for():
    clock = Clock()
    admission = Admission(0.5, row_budget=50, clock=clock)
    a_window(admission, clock, 5_000)
    found = [admission.probability]
    for _ in range(12):
        a_window(admission, clock, 0)
        found.append(admission.probability)
    assert found[:3] == pytest.approx([0.05, 0.0625, 0.078125])
    assert found[-1] == 0.5


def test_a_flood_leaves_some_requests_measured():
    clock = Clock()
    admission = Admission(1.0, row_budget=1, clock=clock)
    for _ in range(5):
        a_window(admission, clock, 10**9)
    assert admission.probability == pytest.approx(1e-4)


def test_weighted_by_what_they_were_admitted_with_requests_count_for_all_that_came():
    clock, hashes = Clock(), np.random.default_rng(1).integers(0, 2**64, 40_000, np.uint64)
    admission = Admission(1.0, row_budget=50, clock=clock)
    estimate = 0.0
    for number, one in enumerate(hashes.tolist()):
        if number == 20_000:
            a_window(admission, clock, 5_000)
        probability = admission.admit(one)
        estimate += 0.0 if probability is None else 1.0 / probability
    # Half of them at one in ten: a standard deviation of 424.
    assert estimate == pytest.approx(40_000, abs=2_000)
    assert admission.probability == pytest.approx(0.1)


def test_a_brake_only_ever_lowers():
    admission = Admission(0.5, row_budget=50)
    admission.brake(0.75)
    assert admission.probability == 0.5
    admission.brake(0.25)
    admission.brake(1.0)
    assert admission.probability == 0.25
    admission.brake(0.0)
    assert admission.admit(0) is None

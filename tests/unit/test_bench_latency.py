"""Percentiles of steps, and their ratios, say which kind of step is slower, at the median or only at its slowest."""

import numpy as np
import pytest

from bench.latency import compare


@pytest.fixture
def idle():
    return np.random.default_rng(1).normal(60.0, 0.5, (40, 126))


def compared(idle, captured, exported):
    return compare({"idle": idle, "captured": captured, "exported": exported}, np.random.default_rng(2))


def test_kinds_that_are_the_same_have_a_ratio_of_one(idle):
    found = compared(idle, idle, idle)
    assert found["exported_to_idle_p999"]["ratio"] == 1.0
    assert found["idle"]["ms_p50"] == pytest.approx(60.0, abs=0.1)


def test_a_kind_that_is_slower_throughout_is_so_at_every_percentile(idle):
    found = compared(idle, idle, idle * 1.1)
    for name in ("p50", "p99", "p999"):
        assert found[f"exported_to_captured_{name}"]["ratio"] == pytest.approx(1.1)
        assert found[f"exported_to_idle_{name}"]["low"] > 1.05


def test_one_late_step_in_250_is_seen_beyond_the_99th_percentile_only(idle):
    late = idle.copy()
    late[::2, 7] += 30.0
    found = compared(idle, idle, late)
    assert found["exported_to_idle_p99"]["high"] < 1.01
    assert found["exported_to_idle_p999"]["low"] > 1.3


def test_an_interval_holds_its_ratio_and_is_wider_where_steps_are_fewer(idle):
    other = np.random.default_rng(3).normal(60.0, 0.5, idle.shape)
    for kinds in ((idle, idle, other), (idle[:5], idle[:5], other[:5])):
        one = compared(*kinds)["exported_to_idle_p99"]
        assert one["low"] <= one["ratio"] <= one["high"]
    many, few = (compared(idle[:n], idle[:n], other[:n])["exported_to_idle_p50"] for n in (40, 5))
    assert many["high"] - many["low"] < few["high"] - few["low"]

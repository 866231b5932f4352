"""Probes of streams and canaries on a device, interpreted, against those of a host, over any course of requests."""

import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.device_streams import CAPACITY, LAYOUT, Course

KEYS = st.sampled_from("abcde")
EVENTS = st.one_of(
    st.tuples(st.just("step"), st.lists(KEYS, unique=True, min_size=1).map(sorted)),
    st.tuples(st.just("step"), st.just(list("abcde"))),
    st.tuples(st.just("flush")),
    st.tuples(st.just("begin"), KEYS, st.booleans(), st.integers(0, 9)),
    st.tuples(st.just("end"), KEYS),
    st.tuples(st.just("back"), KEYS, st.integers(1, 3)),
)
TOLERANCE = {"residual.turn": 1e-4, "residual.curvature": 1e-4}


# Bursts that are cut at every token, of more requests than have a place if that is one.
BEGUN = [("begin", key, key == "c", 0) for key in "abc"]
CUT = [("step", ["a", "b", "c"]), ("flush",)]


@st.composite
def courses(draw: st.DrawFn, places: int = CAPACITY) -> Course:
    begun = [("begin", key, key == "c", draw(st.integers(0, 9))) for key in "abc"]
    events = draw(st.lists(EVENTS, min_size=8, max_size=16))
    stride, dtype = draw(st.sampled_from([1, 2, 5])), draw(st.sampled_from([torch.float32, torch.bfloat16]))
    return Course([*begun, *events], stride, places, dtype, draw(st.integers(0, 2**20)))


def _assert_same(actual, expected, name: str) -> None:
    atol = TOLERANCE.get(name, 2e-5)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=atol, err_msg=name)


@settings(max_examples=8, deadline=None)
@given(course=courses())
@example(course=Course([*BEGUN, *CUT * 6], 1, CAPACITY, torch.bfloat16, 0))
def test_a_device_measures_what_a_host_does_wherever_bursts_are_cut(interpreter, course):
    for flushed in interpreter.call("tests.device_streams", "run", course)[0]:
        for name, block in LAYOUT.blocks.items():
            _assert_same(flushed.device[:, block], flushed.host[:, block], name)
        assert flushed.device_canaries.keys() == flushed.host_canaries.keys()
        for row, expected in flushed.host_canaries.items():
            actual = flushed.device_canaries[row]
            _assert_same(actual.values, expected.values, "canary")
            for name in expected.__dataclass_fields__.keys() - {"values"}:
                assert getattr(actual, name) == getattr(expected, name), name


@settings(max_examples=8, deadline=None)
@given(course=courses(places=1))
@example(course=Course([*BEGUN, *CUT * 6], 1, 1, torch.float32, 0))
def test_a_request_for_whose_rows_is_no_place_is_not_measured_and_no_other_is_measured_wrong(
    interpreter, course
):
    for flushed in interpreter.call("tests.device_streams", "run", course)[0]:
        for name, block in LAYOUT.blocks.items():
            actual, expected = flushed.device[:, block], flushed.host[:, block]
            if name in ("residual.velocity", "residual.curvature"):
                expected = np.where(np.isnan(actual), np.nan, expected)
            _assert_same(actual, expected, name)


def test_nothing_waits_for_the_device_where_streams_and_canaries_are_launched(interpreter):
    assert interpreter.call("tests.device_streams", "waits")[0] == []


def test_what_follows_on_rows_that_a_silent_tap_left_is_not_measured(interpreter):
    told, values = interpreter.call("tests.device_streams", "silenced", 3, 9)[0]
    assert told == [[2]], "once, though its count stays"
    is_measured = {
        name: np.isfinite(values[:, LAYOUT.blocks[f"residual.{name}"]]).all(axis=1).tolist()
        for name in ("log_rms", "velocity", "curvature")
    }
    # The fourth is not true, and dropped by who was told; the fifth followed on it.
    assert is_measured["log_rms"] == [True] * 9
    assert is_measured["velocity"] == [False, False, True, False, False, False, True, True, True]
    assert is_measured["curvature"] == [False] * 7 + [True, True]

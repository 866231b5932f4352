"""Streams that kernels measure, interpreted, behind graphs that lack the taps: the ladder finds steps that do not."""

import pytest

from introspan.capture.rows import BURST

pytestmark = pytest.mark.slow  # a process of its own imports vLLM


@pytest.mark.parametrize(("silent", "rung"), [(["FULL"], "PIECEWISE"), (["FULL", "PIECEWISE"], "EAGER")])
def test_what_a_device_measures_after_a_fall_is_right(interpreter, silent, rung):
    since = 20
    outcome = interpreter.call("tests.laddered", "serve", "V2", "FULL_AND_PIECEWISE", silent, since, 120, {})[
        0
    ]
    assert outcome.rung == rung
    mode = "NONE" if rung == "EAGER" else "PIECEWISE"
    lowered = [place for place, one in enumerate(outcome.modes) if one == mode]
    measured = [position for position, is_measured in outcome.measured.items() if is_measured]
    assert len(lowered) == BURST
    assert measured[-BURST:] == lowered
    assert set(measured) - set(lowered) <= set(range(since))
    assert set(outcome.disabled) <= {"capture.full_graphs", "capture.graphs"}
    assert outcome.waits == 0

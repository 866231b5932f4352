"""The tapped streams of the first measured step in; a verdict on whether they are what they are taken for out."""

import torch

from introspan.capture.anatomy import Form
from introspan.capture.health import Health
from introspan.capture.taps import Taps
from introspan.observation import Disabled


def check_streams(taps: Taps, count: int, health: Health) -> None:
    """Every tap fired exactly once, and every norm reproduces its output from the tapped stream.

    Switches the residual signals off where that is not so.
    """
    silent = taps.silent()
    if silent:
        detail = f"the stream entering layers {silent} did not pass its tap exactly once in a step"
        health.refuse(Disabled("residual", "tap_silent", detail))
        return
    for tap, point in enumerate(taps.points):
        if point.form is Form.LAYER_INPUT:
            continue
        stream = taps.tapped(tap, count)
        # Past the hooks: the module's own forward, on the tapped rows alone.
        result = point.module.forward(stream.clone())
        # A norm that hands a residual through returns it beside its output even where it was given none.
        expected = result[0] if isinstance(result, tuple) else result
        actual = taps.outputs(tap, count)
        error = float((expected.float() - actual.float()).abs().max())
        tolerance = 32 * torch.finfo(stream.dtype).eps * max(1.0, float(actual.float().abs().max()))
        if not error <= tolerance:
            detail = f"layer {point.layer}: the norm of the tapped stream is off by {error:.3g}"
            health.refuse(Disabled("residual", "self_check_failed", detail))
            return

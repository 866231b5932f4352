"""The tapped streams of the first measured step in; a verdict on whether they are what they are taken for out."""

import torch

from introspan.capture.anatomy import Form
from introspan.capture.health import Health
from introspan.capture.taps import CHECK_ROWS, Taps
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
        why = _difference(taps, tap, min(count, CHECK_ROWS))
        if why is not None:
            detail = f"layer {point.layer}: the norm of the tapped stream {why}"
            health.refuse(Disabled("residual", "self_check_failed", detail))
            return


def _difference(taps: Taps, tap: int, count: int) -> str | None:
    """What a norm makes of its tapped stream other than it did in the forward, or None."""
    stream, actual = taps.tapped(tap, count), taps.outputs(tap, count)
    try:
        # Past the hooks: the module's own forward, on the tapped rows alone.
        result = taps.points[tap].module.forward(stream.clone())
    except Exception as error:  # noqa: BLE001 - what cannot be checked is not measured
        return f"cannot be computed outside a forward: {type(error).__name__}: {error}"
    # A norm that hands a residual through returns it beside its output even where it was given none.
    expected = result[0] if isinstance(result, tuple) else result
    off = float((expected.float() - actual.float()).abs().max())
    tolerance = 32 * torch.finfo(stream.dtype).eps * max(1.0, float(actual.float().abs().max()))
    return None if off <= tolerance else f"is off by {off:.3g}"

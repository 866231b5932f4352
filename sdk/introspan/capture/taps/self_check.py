"""The tapped streams of the first measured step in; a verdict on whether they are what they are taken for out."""

import torch

from introspan.capture.health import Health
from introspan.capture.model.anatomy import Form
from introspan.capture.taps.streams import CHECK_ROWS, Taps
from introspan.observation import Disabled

_TOLERANCE = 1e-5
"""Of the length of what a norm gives, in float32; types of fewer bits have four roundings."""


def check_streams(taps: Taps, count: int, health: Health) -> bool:
    """Every tap fired exactly once, and every norm reproduces its output from the tapped stream.

    Switches the residual signals off where that is not so. Whether that was decided: where a model gives no finite
    number nothing can be.
    """
    silent = taps.silent()
    if silent:
        detail = f"the stream entering layers {silent} did not pass its tap exactly once in a step"
        health.refuse(Disabled("residual", "tap_silent", detail))
        return True
    rows = _finite(taps, min(count, CHECK_ROWS))
    if not rows.numel():
        return False
    for tap, point in enumerate(taps.points):
        if point.form in (Form.LAYER_INPUT, Form.HANDED_ON):
            continue
        why = _difference(taps, tap, rows)
        if why is not None:
            detail = f"layer {point.layer}: the norm of the tapped stream {why}"
            health.refuse(Disabled("residual", "self_check_failed", detail))
            return True
    return True


def _finite(taps: Taps, count: int) -> torch.Tensor:
    """The first rows that are finite at every tap and behind its norm, int64."""
    sums = [
        taps.tapped(tap, count).float().sum(dim=-1) + taps.outputs(tap, count).float().sum(dim=-1)
        for tap in range(len(taps.points))
    ]
    return torch.isfinite(torch.stack(sums)).all(dim=0).nonzero().flatten()


def _difference(taps: Taps, tap: int, rows: torch.Tensor) -> str | None:
    """What a norm makes of its tapped stream other than it did in the forward, or None."""
    last = int(rows[-1]) + 1
    stream, actual = taps.tapped(tap, last)[rows], taps.outputs(tap, last)[rows]
    try:
        # Past the hooks: the module's own forward, on the tapped rows alone.
        result = taps.points[tap].module.forward(stream.clone())
    except Exception as error:  # noqa: BLE001 - what cannot be checked is not measured
        return f"cannot be computed outside a forward: {type(error).__name__}: {error}"
    # A norm that hands a residual through returns it beside its output even where it was given none.
    expected = result[0] if isinstance(result, tuple) else result
    # Of a row's length: in bfloat16 the largest difference of single numbers that rounding explains would hide what one
    # layer adds to the stream, which is what a stream in two parts lacks.
    difference, length = (expected.float() - actual.float()).norm(dim=-1), actual.float().norm(dim=-1)
    off = float((difference / length).max())
    return (
        None
        if off <= max(_TOLERANCE, 4 * torch.finfo(stream.dtype).eps)
        else f"is off by {off:.3g} of its length"
    )

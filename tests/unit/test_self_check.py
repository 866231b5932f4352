"""The first step's verdict on the streams: silent taps, and norms that do not follow from what was tapped."""

import pytest
import torch
from torch import nn

from introspan.capture.health import Health
from introspan.capture.model.anatomy import Form, StreamPoint
from introspan.capture.taps.self_check import check_streams
from introspan.capture.taps.streams import CHECK_ROWS, Taps

D, TOKENS = 32, 12


class Norm(nn.Module):
    """As vLLM's: of x alone, or of x and a residual, whose sum it hands on."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(1.0 + 0.1 * torch.randn(D, generator=torch.Generator().manual_seed(seed)))

    def forward(self, x, residual=None):
        stream = x if residual is None else x + residual
        normed = stream * torch.rsqrt(stream.square().mean(-1, keepdim=True) + 1e-6) * self.weight
        return normed if residual is None else (normed, stream)


class SplitNorm(Norm):
    """Normalises the sum, and hands on the residual without what was added to it."""

    def forward(self, x, residual=None):
        if residual is None:
            return super().forward(x)
        return super().forward(x, residual)[0], residual


class StatefulNorm(Norm):
    """Answers outside of a forward only with an error."""

    calls = 0

    def forward(self, x, residual=None):
        StatefulNorm.calls += 1
        if StatefulNorm.calls > 1:
            raise RuntimeError("no forward context")
        return super().forward(x, residual)


@torch.inference_mode()
def verdict(norms, calls=(1, 1, 1), rows=3, dtype=torch.float32, update=1.0, spoiled=0):
    """What is disabled after a step in which each norm is called so often, the first of x alone.

    update: how large what a layer adds is, against the stream. spoiled: of how many of the rows it is no number. None
    where nothing could be decided.
    """
    health = Health()
    points = [StreamPoint(layer, norm, Form.NORM) for layer, norm in enumerate(norms)]
    taps = Taps(points, TOKENS, D, dtype, torch.device("cpu"), health)
    taps.select(torch.arange(TOKENS - rows, TOKENS), 0, with_output=True)
    generator = torch.Generator().manual_seed(5)
    for layer, (norm, times) in enumerate(zip(norms, calls, strict=True)):
        for _ in range(times):
            x, r = torch.randn(2, TOKENS, D, generator=generator).to(dtype)
            x[TOKENS - rows : TOKENS - rows + spoiled] = torch.nan
            norm(x) if layer == 0 else norm(update * x, r)
    is_decided = check_streams(taps, rows, health)
    taps.deselect()
    if not is_decided:
        assert not health.disabled
        return None
    return [(entry.signal, entry.reason, entry.detail) for entry in health.disabled.values()]


DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, CHECK_ROWS, TOKENS])
def test_norms_that_follow_from_the_tapped_stream_leave_everything_on(rows, dtype):
    assert verdict([norm.to(dtype) for norm in (Norm(0), Norm(1), Norm(2))], rows=rows, dtype=dtype) == []


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("update", [1.0, 0.3, 0.1])
def test_a_stream_without_what_was_added_last_is_not_taken_for_the_whole(dtype, update):
    norms = [norm.to(dtype) for norm in (Norm(0), SplitNorm(1), Norm(2))]
    ((signal, reason, detail),) = verdict(norms, dtype=dtype, update=update)
    assert (signal, reason) == ("residual", "self_check_failed")
    assert detail.startswith("layer 1: the norm of the tapped stream is off by ")


def test_rows_that_are_no_numbers_neither_refute_a_stream_nor_prove_it():
    assert verdict([Norm(0), Norm(1), Norm(2)], spoiled=3) is None
    assert verdict([Norm(0), Norm(1), Norm(2)], spoiled=2) == []
    ((_, reason, _),) = verdict([Norm(0), SplitNorm(1), Norm(2)], spoiled=2)
    assert reason == "self_check_failed"


@pytest.mark.parametrize("times", [0, 2])
def test_a_tap_that_a_step_did_not_pass_exactly_once_switches_streams_off(times):
    ((signal, reason, detail),) = verdict([Norm(0), Norm(1), Norm(2)], calls=(1, 1, times))
    assert (signal, reason) == ("residual", "tap_silent")
    assert "entering layers [2]" in detail


def test_a_norm_that_cannot_be_tried_is_not_believed():
    ((signal, reason, detail),) = verdict([Norm(0), Norm(1), StatefulNorm(2)])
    assert (signal, reason) == ("residual", "self_check_failed")
    assert detail.endswith("cannot be computed outside a forward: RuntimeError: no forward context")

"""The kernels of streams and of gathered rows, interpreted, against the torch functions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from introspan.capture.stream.projection import orthogonal_map, project
from introspan.capture.stream.residual import curvature, direction, layer_statistics, step
from introspan.capture.taps import gather

EXAMPLES = settings(max_examples=25, deadline=None)
DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16])
SEEDS = st.integers(0, 2**31)


@st.composite
def streams(draw):
    """Rows [rows, taps, d], where layers begin and end, which rows came before, and rows that were kept."""
    rows, taps, d = draw(st.integers(1, 4)), draw(st.integers(2, 4)), draw(st.sampled_from([33, 64, 96, 576]))
    generator = torch.Generator().manual_seed(draw(SEEDS))
    dtype = draw(DTYPES)
    # What float16 can hold.
    size = draw(st.sampled_from([1e-2, 1.0, 100.0] if dtype == torch.float16 else [1e-30, 1.0, 1e30]))
    # As taps have them: each tap's rows in one piece.
    h = (torch.randn(taps, rows, d, generator=generator) * size).to(dtype).transpose(0, 1)
    odd = draw(st.sampled_from(["plain", "nan", "inf", "zeros", "unchanged"]))
    if odd == "unchanged":
        h[0, 1:] = h[0, :1]
    elif odd != "plain":
        h[0, 1] = 0.0
        h[0, 1, 7] = {"nan": math.nan, "inf": -math.inf, "zeros": 0.0}[odd]
    at = torch.arange(taps - 1)
    kept = torch.randn(3, taps - 1, d, generator=generator).to(dtype)
    places = st.integers(-1, rows + 2)
    last, before_last = (torch.tensor([draw(places) for _ in range(rows)]) for _ in range(2))
    return h, at, at + 1, last, before_last, kept


def _expected(h, at, after, last, before_last, kept):
    """The signals by the torch functions, a row's predecessors from one bank of vectors as the stream probe has it."""
    everywhere = direction(h)
    layers = layer_statistics(everywhere.select(at), everywhere.select(after))
    unit = everywhere.select(at).unit
    bank = torch.cat([unit, direction(kept).unit])
    later, earlier = step(bank[last], unit), step(bank[before_last], bank[last])
    velocity = later.length.masked_fill((last < 0).unsqueeze(1), math.nan)
    bent = curvature(earlier, later).masked_fill(((last < 0) | (before_last < 0)).unsqueeze(1), math.nan)
    return layers, velocity, bent


@EXAMPLES
@given(case=streams())
def test_residual_signals_are_those_of_the_torch_functions(interpreter, case):
    layers, velocity, bent = _expected(*case)
    found = interpreter.streams(*case)
    for name in ("log_rms", "log_peak", "update_ratio", "nonfinite"):
        actual, expected = getattr(found.layers, name), getattr(layers, name)
        torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-5, equal_nan=True, msg=name)
    # log₁₀ of a squared difference of directions.
    torch.testing.assert_close(found.layers.turn, layers.turn, atol=1e-4, rtol=0, equal_nan=True)
    torch.testing.assert_close(found.velocity, velocity, atol=1e-5, rtol=0, equal_nan=True)
    torch.testing.assert_close(found.curvature, bent, atol=1e-4, rtol=0, equal_nan=True)


@pytest.mark.parametrize(("size", "is_measured"), [(4e-7, False), (4e-6, True)])
def test_an_angle_between_steps_that_are_but_rounding_is_not_measured(interpreter, size, is_measured):
    h, kept, row = torch.zeros(1, 2, 64), torch.zeros(2, 1, 64), torch.arange(1)
    h[0, :, 0] = kept[:, 0, 0] = 1.0
    kept[0, 0, 1], kept[1, 0, 2] = size, size
    found = interpreter.streams(h, row, row + 1, torch.tensor([1]), torch.tensor([2]), kept)
    assert bool(found.curvature.isfinite().all()) == is_measured
    assert found.velocity.item() == pytest.approx(size, rel=1e-2)


@EXAMPLES
@given(case=streams())
def test_projections_are_those_of_the_torch_function(interpreter, case):
    h, at = case[0], case[1]
    map_ = torch.from_numpy(orthogonal_map(h.shape[2]))
    expected = project(direction(h).unit[:, at], map_)
    found = interpreter.call("projection", "project", h, at, map_)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5, equal_nan=True)


@EXAMPLES
@given(
    seed=SEEDS,
    count=st.integers(1, 6),
    width=st.sampled_from([1, 96, 1024, 1500]),
    dtype=DTYPES,
    slots=st.lists(st.integers(-2, 8), min_size=1, max_size=6),
    is_wide=st.booleans(),
)
def test_gathered_rows_are_those_of_the_torch_form(interpreter, seed, count, width, dtype, slots, is_wide):
    generator = torch.Generator().manual_seed(seed)
    source = torch.randn(count, 2 * width if is_wide else width, generator=generator).to(dtype)[:, :width]
    into = torch.randn(len(slots), width, generator=generator).to(dtype)
    expected = into.clone()
    gather.gather_rows(source, torch.tensor(slots), expected)
    _, (_, _, found) = interpreter.call("rows", "gather_rows", source, torch.tensor(slots), into)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("slot", [-(2**40), 2**40, 3])
def test_a_slot_far_outside_reads_nothing(interpreter, slot):
    source, into = torch.ones(3, 64), torch.zeros(2, 64)
    _, (_, _, found) = interpreter.call("rows", "gather_rows", source, torch.tensor([slot, 1]), into)
    assert np.array_equal(found[:, 0].numpy(), [0.0, 1.0])

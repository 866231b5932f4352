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


@st.composite
def tapped(draw):
    """What a tap works on, in the order of its arguments."""
    count, width = draw(st.integers(1, 6)), draw(st.sampled_from([1, 96, 1024, 1500]))
    generator, dtype = torch.Generator().manual_seed(draw(SEEDS)), draw(DTYPES)
    slots, checked = (draw(st.lists(st.integers(-2, 8), min_size=1, max_size=6)) for _ in range(2))

    def rows(places: int, *, is_wide: bool = False) -> torch.Tensor:
        return torch.randn(places, 2 * width if is_wide else width, generator=generator).to(dtype)[:, :width]

    source, output = (rows(count, is_wide=draw(st.booleans())) for _ in range(2))
    plan = torch.tensor([*slots, *checked, draw(st.integers(0, 1))])
    numbers = torch.split_with_sizes(plan, [len(slots), len(checked), 1])
    return [source, output, *numbers, rows(len(slots)), rows(len(checked)), torch.tensor([7])]


@EXAMPLES
@given(case=tapped())
def test_a_tap_copies_and_counts_as_the_torch_form_does(interpreter, case):
    _, found = interpreter.call("rows", "gather", *case)
    gather.gather(*case)
    for actual, expected in zip(found, case, strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("slot", [-(2**40), 2**40, 3])
def test_a_slot_far_outside_reads_nothing(interpreter, slot):
    source, plan, rows = torch.ones(3, 64), torch.tensor([slot, 1]), torch.zeros(2, 64)
    one = torch.ones(1, dtype=torch.int64)
    _, found = interpreter.call("rows", "gather", source, source, plan, plan, one, rows, rows, one)
    for copied in found[5:7]:
        assert np.array_equal(copied[:, 0].numpy(), [0.0, 1.0])


def test_rows_of_another_width_than_a_taps_buffers_are_refused(interpreter):
    one, rows = torch.ones(1, dtype=torch.int64), torch.zeros(1, 64)
    with pytest.raises(AssertionError, match="must be 64 numbers wide"):
        interpreter.call("rows", "gather", torch.ones(3, 63), rows, one, one, one, rows, rows, one)

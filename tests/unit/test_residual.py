"""Residual stream signals against their formulas in float64."""

import math

import numpy as np
import pytest
import torch

from introspan.capture.stream.residual import TURN_FLOOR, curvature, direction, layer_statistics, step


def naive_layer(h, after):
    """log_rms, log_peak, turn, update_ratio of one row, as the catalogue writes them. h, after: float64 [d]."""
    rms = math.sqrt((h**2).mean())
    cosine = h @ after / (np.linalg.norm(h) * np.linalg.norm(after))
    return [
        math.log(rms),
        math.log(np.abs(h).max() / rms),
        math.log10(1 - cosine),
        np.linalg.norm(after - h) / np.linalg.norm(h),
    ]


def naive_step(first, second, third):
    """velocity, curvature of one row. Each: float64 [d], not normalised."""
    first, second, third = (x / math.sqrt((x**2).mean()) for x in (first, second, third))
    a, b = third - second, second - first
    cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    return np.linalg.norm(a) / np.linalg.norm(second), math.acos(max(-1.0, min(1.0, cosine)))


def layers(h, after):
    """layer_statistics of streams rather than directions."""
    return layer_statistics(direction(h), direction(after))


def steps(before_last, last, current):
    """velocity and curvature of three unit vectors."""
    later = step(last, current)
    return later.length, curvature(step(before_last, last), later)


def _stream(*shape, seed=0, scale=1.0):
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale).to(torch.float32)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e4, 1e30])
def test_layer_statistics_follow_their_formulas_at_any_size(scale):
    h, update = _stream(3, 5, 96, seed=1, scale=scale), _stream(3, 5, 96, seed=2, scale=0.4 * scale)
    h[1, 2, 7] *= 300  # a massive activation
    found = layers(h, h + update)
    for row in range(3):
        for layer in range(5):
            at, after = h[row, layer].double().numpy(), (h + update)[row, layer].double().numpy()
            expected = naive_layer(at, after)
            measured = [
                float(x[row, layer]) for x in (found.log_rms, found.log_peak, found.turn, found.update_ratio)
            ]
            assert measured == pytest.approx(expected, abs=2e-5)
    assert not found.nonfinite.any()


def test_small_turns_are_exact_where_one_minus_a_float32_cosine_would_be_noise():
    h, sideways = torch.zeros(1, 64), torch.zeros(1, 64)
    h[0, 0], sideways[0, 1] = 1.0, 1e-5
    found = layers(h, h + sideways)
    assert found.turn.item() == pytest.approx(math.log10(0.5e-10), abs=1e-3)
    assert 1 - torch.nn.functional.cosine_similarity(h, h + sideways).item() == pytest.approx(0, abs=1e-12)


def test_a_layer_that_changes_nothing_turns_by_the_floor():
    h = _stream(1, 64)
    found = layers(h, h * 2)
    assert found.turn.item() == pytest.approx(TURN_FLOOR)
    assert layers(h, h).update_ratio.item() == 0


def test_a_layer_that_reverses_the_stream_turns_by_log10_of_2():
    h = _stream(1, 64)
    assert layers(h, -h).turn.item() == pytest.approx(math.log10(2), abs=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_rows_are_counted_and_otherwise_not_measured(value):
    h = _stream(3, 2, 64)
    h[1, 0, 5] = h[1, 0, 9] = value
    found = layers(h, h + 1)
    assert found.nonfinite.tolist() == [[0, 0], [2, 0], [0, 0]]
    for signal in (found.log_rms, found.log_peak, found.turn, found.update_ratio):
        assert signal.isnan().tolist() == [[False, False], [True, False], [False, False]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_layer_that_leaves_a_non_finite_stream_has_no_turn_and_no_update_ratio(value):
    h, after = _stream(2, 64), _stream(2, 64, seed=1)
    after[1, 3] = value
    found = layers(h, after)
    assert found.log_rms.isfinite().all()
    assert not found.nonfinite.any()
    assert found.turn.isnan().tolist() == found.update_ratio.isnan().tolist() == [False, True]


def test_an_all_zero_stream_is_not_measured():
    found = layers(torch.zeros(1, 64), _stream(1, 64))
    assert all(x.isnan().all() for x in (found.log_rms, found.log_peak, found.turn, found.update_ratio))
    assert found.nonfinite.item() == 0


def test_step_statistics_follow_their_formulas():
    burst = [_stream(4, 3, 96, seed=seed, scale=10.0**seed) for seed in range(3)]
    velocities, curvatures = steps(*(direction(h).unit for h in burst))
    for row in range(4):
        for layer in range(3):
            velocity, curvature = naive_step(*(h[row, layer].double().numpy() for h in burst))
            assert velocities[row, layer].item() == pytest.approx(velocity, abs=1e-5)
            assert curvatures[row, layer].item() == pytest.approx(curvature, abs=1e-5)


@pytest.mark.parametrize("angle", [0.0, 1e-4, 1.0, math.pi / 2, math.pi - 1e-3, math.pi])
def test_curvature_is_exact_near_straight_and_near_reversal(angle):
    base = torch.zeros(3, 8, dtype=torch.float64)
    base[1, 0] = 0.5
    base[2, 0], base[2, 1] = 0.5 + 0.5 * math.cos(angle), 0.5 * math.sin(angle)
    _, found = steps(*(row.to(torch.float32) for row in base))
    assert found.item() == pytest.approx(angle, abs=2e-6)


def test_a_step_too_short_has_a_velocity_but_no_direction():
    unit = direction(_stream(3, 64)).unit
    velocity, angle = steps(unit[0], unit[1], unit[1] + 1e-8)
    assert velocity.item() < 1e-6
    assert angle.isnan()
    assert steps(unit[1], unit[1], unit[0])[1].isnan()
    assert not steps(unit[0], unit[1], unit[2])[1].isnan()

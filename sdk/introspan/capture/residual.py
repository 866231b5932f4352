"""Rows of the residual stream in, their size, peak, turn, update, velocity and curvature out.

Everything is computed from u = h / max|h|, so that neither huge nor tiny streams overflow, and differences of
directions are taken before norms: 1 − cos is ‖e − e′‖²/2 of unit vectors, never 1 minus a dot product. A row
with a NaN or ±Inf, and an all-zero row, give NaN everywhere but in the count of non-finite values.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

TURN_FLOOR = -14.0
"""Least `residual.turn`: float32 directions closer than 1 − cos = 1e-14 are the same."""

LEAST_STEP = 1e-6
"""Shortest step between tokens, relative to ‖ĥ‖, whose direction is more than rounding."""

_NAN = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Direction:
    """A stream row taken apart: unit = h/‖h‖ [..., d], peak = max|h|, norm = ‖h‖/peak, both [..., 1]."""

    unit: Tensor
    peak: Tensor
    norm: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class LayerStatistics:
    """Per row and layer, float32; units and formulas as in the signal catalogue.

    unit: h_ℓ / ‖h_ℓ‖ [..., d], what `step_statistics` and `projection.project` take.
    """

    unit: Tensor
    log_rms: Tensor
    log_peak: Tensor
    turn: Tensor
    update_ratio: Tensor
    nonfinite: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class StepStatistics:
    """Per burst and layer, float32."""

    velocity: Tensor
    curvature: Tensor


def direction(h: Tensor) -> Direction:
    """Unit vectors of stream rows. h: [..., d]; not finite or zero → NaN."""
    h = h.to(torch.float32)
    peak = h.abs().amax(dim=-1, keepdim=True)
    scaled = h / peak
    norm = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return Direction(scaled / norm, peak, norm)


def layer_statistics(h: Tensor, h_next: Tensor) -> LayerStatistics:
    """What one layer did to the stream. h enters the layer, h_next leaves it: [..., d] → each [...]."""
    h, h_next = h.to(torch.float32), h_next.to(torch.float32)
    at, after = direction(h), direction(h_next)
    log_norm = at.norm.squeeze(-1).log()
    half_log_d = 0.5 * math.log(h.shape[-1])
    nonfinite = torch.zeros_like(log_norm)
    # A row with a value that is not finite has no norm, so the common case needs no pass of its own; but looking
    # would wait for a device that is not the CPU.
    if h.device.type != "cpu" or bool(log_norm.isnan().any()):
        nonfinite = h.isfinite().logical_not().sum(dim=-1, dtype=torch.float32)
    one_minus_cos = torch.linalg.vector_norm(at.unit - after.unit, dim=-1).square() * 0.5
    update = torch.linalg.vector_norm((h_next - h) / at.peak, dim=-1) / at.norm.squeeze(-1)
    return LayerStatistics(
        unit=at.unit,
        log_rms=at.peak.squeeze(-1).log() + (log_norm - half_log_d),
        log_peak=half_log_d - log_norm,
        turn=one_minus_cos.clamp(min=10.0**TURN_FLOOR).log10(),
        update_ratio=update.masked_fill(update.isinf(), _NAN),
        nonfinite=nonfinite,
    )


def step_statistics(before_last: Tensor, last: Tensor, current: Tensor) -> StepStatistics:
    """How the stream moves over three consecutive tokens, from their unit vectors, each [..., d] → [...].

    Curvature is 2·atan2(‖a − b‖, ‖a + b‖) of the unit steps a and b, exact near 0 and π; NaN where a step is
    shorter than 1e-6 ‖ĥ‖.
    """
    step, earlier = current - last, last - before_last
    length = torch.linalg.vector_norm(step, dim=-1)
    earlier_length = torch.linalg.vector_norm(earlier, dim=-1)
    a, b = step / length.unsqueeze(-1), earlier / earlier_length.unsqueeze(-1)
    angle = 2.0 * torch.atan2(
        torch.linalg.vector_norm(a - b, dim=-1), torch.linalg.vector_norm(a + b, dim=-1)
    )
    still = torch.minimum(length, earlier_length) < LEAST_STEP
    return StepStatistics(length, angle.masked_fill(still, _NAN))

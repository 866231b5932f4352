"""Rows of the residual stream in, their size, peak, turn, update, velocity and curvature out.

Everything is computed from u = h / max|h|, so that neither huge nor tiny streams overflow, and differences of
directions are taken before norms: 1 − cos is ‖e − e′‖²/2 of unit vectors, never 1 minus a dot product. A row
with a NaN or ±Inf, and an all-zero row, give NaN everywhere but in the count of non-finite values. Vectors are gone
over as seldom as can be: it is memory that these take their time for.
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
    """Stream rows taken apart: unit = h/‖h‖ [..., d]; peak = max|h|, norm = ‖h‖/peak and, counted, nonfinite, [...]."""

    unit: Tensor
    peak: Tensor
    norm: Tensor
    nonfinite: Tensor

    def select(self, index: Tensor) -> "Direction":
        """Some layers of rows [rows, layers, d]."""
        parts = (self.unit, self.peak, self.norm, self.nonfinite)
        return Direction(*(part.index_select(1, index) for part in parts))


@dataclass(frozen=True, slots=True, eq=False)
class LayerStatistics:
    """Per row and layer, float32; units and formulas as in the signal catalogue."""

    log_rms: Tensor
    log_peak: Tensor
    turn: Tensor
    update_ratio: Tensor
    nonfinite: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """From one token's unit vector to the next one's: the difference [..., d] and its length [...], the velocity."""

    difference: Tensor
    length: Tensor


def direction(h: Tensor) -> Direction:
    """Size and direction of stream rows [..., d], layer by layer; not finite or zero → NaN."""
    h = h.to(torch.float32)
    u = h.abs()
    peak = u.amax(dim=-1, keepdim=True)
    u = torch.div(h, peak, out=u)
    norm = torch.linalg.vector_norm(u, dim=-1, keepdim=True)
    nonfinite = torch.zeros_like(norm)
    # A row with a value that is not finite has no norm, so the common case needs no pass of its own; but looking
    # would wait for a device that is not the CPU.
    if h.device.type != "cpu" or bool(norm.isnan().any()):
        nonfinite = h.isfinite().logical_not().sum(dim=-1, keepdim=True, dtype=torch.float32)
    return Direction(u.div_(norm), peak.squeeze(-1), norm.squeeze(-1), nonfinite.squeeze(-1))


def layer_statistics(at: Direction, after: Direction) -> LayerStatistics:
    """What one layer did to the stream. at enters the layer, after leaves it: rows [..., d] → each [...]."""
    half_log_d = 0.5 * math.log(at.unit.shape[-1])
    log_norm = at.norm.log()
    apart = torch.linalg.vector_norm(at.unit - after.unit, dim=-1).square()
    # ‖h′ − h‖² = (‖h′‖ − ‖h‖)² + ‖h‖ ‖h′‖ ‖e − e′‖², which goes over no vector again.
    growth = (after.peak / at.peak) * (after.norm / at.norm)
    update = ((growth - 1.0).square() + growth * apart).sqrt()
    return LayerStatistics(
        log_rms=at.peak.log() + (log_norm - half_log_d),
        log_peak=half_log_d - log_norm,
        turn=(apart * 0.5).clamp(min=10.0**TURN_FLOOR).log10(),
        update_ratio=update.masked_fill(update.isinf(), _NAN),
        nonfinite=at.nonfinite,
    )


def step(last: Tensor, current: Tensor) -> Step:
    """How the stream moves from one token to the next, from their unit vectors [..., d]."""
    difference = current - last
    return Step(difference, torch.linalg.vector_norm(difference, dim=-1))


def curvature(earlier: Step, later: Step) -> Tensor:
    """The angle between two steps in turn, [...]; NaN where one is shorter than 1e-6 ‖ĥ‖.

    2·atan2(‖a − b‖, ‖a + b‖) of the unit steps a and b, exact near 0 and π.
    """
    a = later.difference / later.length.unsqueeze(-1)
    b = earlier.difference / earlier.length.unsqueeze(-1)
    angle = 2.0 * torch.atan2(
        torch.linalg.vector_norm(a - b, dim=-1), torch.linalg.vector_norm(a + b, dim=-1)
    )
    return angle.masked_fill(torch.minimum(later.length, earlier.length) < LEAST_STEP, _NAN)

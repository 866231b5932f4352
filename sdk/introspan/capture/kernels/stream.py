"""Stream rows of a batch on a GPU, and rows kept from earlier ones, in; residual signals of each row and layer out.

The torch functions of `capture/stream/residual.py` are what this is held against. Nothing here waits for the device.
"""

import math
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from introspan.capture.kernels.stream_parts import measure
from introspan.capture.stream.residual import LEAST_STEP, TURN_FLOOR, LayerStatistics


@dataclass(frozen=True, slots=True, eq=False)
class Earlier:
    """Where the rows lie that were computed one and two tokens before each row of a batch.

    last, before_last: int [rows], on the device: a row of the batch, a place in kept behind the batch's rows, counted
    on, or −1 = none. kept: stream rows, or their unit vectors, [places, layers, d].
    """

    last: Tensor
    before_last: Tensor
    kept: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class StreamStatistics:
    """Of each row and measured layer, float32 [rows, layers]; NaN = not measured."""

    layers: LayerStatistics
    velocity: Tensor
    curvature: Tensor


def stream_statistics(h: Tensor, at: Tensor, after: Tensor, earlier: Earlier) -> StreamStatistics:
    """Residual signals of rows [rows, taps, d]; at, after: int64 [layers], the taps before and behind each layer."""
    return statistics_of(begin_statistics(h, at, after, earlier))


def begin_statistics(h: Tensor, at: Tensor, after: Tensor, earlier: Earlier) -> Tensor:
    """What `statistics_of` makes those signals of, float32 [9, rows, layers], by one launch."""
    rows, _, d = h.shape
    padded = triton.next_power_of_2(d)
    h, kept = (each if each.stride(2) == 1 else each.contiguous() for each in (h, earlier.kept))
    results = h.new_full((9, rows, at.numel()), math.nan, dtype=torch.float32)
    if results.numel():
        measure[(rows, at.numel())](
            h, kept, at, after, earlier.last, earlier.before_last, results, rows, at.numel(),
            h.stride(0), h.stride(1), kept.stride(0), kept.stride(1), 0.5 * math.log(d), 10.0**TURN_FLOOR,
            d=d, padded=padded, num_warps=_warps(padded),
        )  # fmt: skip
    return results


def statistics_of(results: Tensor) -> StreamStatistics:
    """The signals, on the device that has them, or on the host once they have come there."""
    log_rms, log_peak, turn, update, nonfinite, velocity, apart, together, least = results.unbind()
    # Here, because the language has no arc tangent.
    curvature = (2.0 * torch.atan2(apart, together)).masked_fill(least < LEAST_STEP, math.nan)
    return StreamStatistics(LayerStatistics(log_rms, log_peak, turn, update, nonfinite), velocity, curvature)


def _warps(padded: int) -> int:
    """As many threads as hold a few whole vectors in their registers."""
    return min(16, max(1, padded // 1024))

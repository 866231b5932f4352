"""Stream rows in; size, turn, update and steps of each row and layer out, in one pass over the vectors.

As in `capture/stream/residual.py`: everything from u = h / max|h|, differences of directions before norms. One program
takes a row and a layer, whose vectors it holds whole.
"""

import triton
import triton.language as tl


@triton.jit
def divide(dividend: tl.tensor, divisor: tl.tensor) -> tl.tensor:
    """Rounded as on a CPU: the fast division gives 0 where the divisor is huge."""
    return tl.math.div_rn(dividend, divisor)


@triton.jit
def _take_apart(vector: tl.tensor, numbers: tl.tensor, d: tl.constexpr) -> tuple[tl.tensor, ...]:
    """A vector's unit [padded], its peak, the norm of vector / peak, and how many of its numbers are not finite.

    A NaN passes the peak by, but not the norm; of ±Inf and of nothing but zeros the unit is NaN.
    """
    h = tl.load(vector + numbers, mask=numbers < d, other=0.0).to(tl.float32)
    size = tl.abs(h)
    nonfinite = tl.sum(tl.where(size < float("inf"), 0.0, 1.0), 0)
    peak = tl.max(size, 0)
    u = divide(h, peak)
    norm = tl.sqrt(tl.sum(u * u, 0))
    return divide(u, norm), peak, norm, nonfinite


@triton.jit
def _length(vector: tl.tensor) -> tl.tensor:
    return tl.sqrt(tl.sum(vector * vector, 0))


@triton.jit
def _unit_of(
    index: tl.tensor,
    streams: tl.tensor,
    kept: tl.tensor,
    rows: tl.tensor,
    row_stride: tl.tensor,
    tap_stride: tl.tensor,
    tap: tl.tensor,
    kept_stride: tl.tensor,
    kept_layer_stride: tl.tensor,
    layer: tl.tensor,
    numbers: tl.tensor,
    d: tl.constexpr,
) -> tl.tensor:
    """The direction of a row of this batch, or behind those of one that was kept."""
    if index < rows:
        unit, _, _, _ = _take_apart(streams + index * row_stride + tap * tap_stride, numbers, d)
    else:
        place = (index - rows) * kept_stride + layer * kept_layer_stride
        unit, _, _, _ = _take_apart(kept + place, numbers, d)
    return unit


# Longer than others: a kernel's parameters are its memory. Neither batches nor canaries, which are measured at other
# layers than traffic, compile it anew.
@triton.jit(do_not_specialize=["rows", "layers"])
def measure(
    streams: tl.tensor,
    kept: tl.tensor,
    at: tl.tensor,
    after: tl.tensor,
    last: tl.tensor,
    before_last: tl.tensor,
    results: tl.tensor,
    rows: tl.tensor,
    layers: tl.tensor,
    row_stride: tl.tensor,
    tap_stride: tl.tensor,
    kept_stride: tl.tensor,
    kept_layer_stride: tl.tensor,
    half_log_d: tl.tensor,
    least_apart: tl.tensor,
    d: tl.constexpr,
    padded: tl.constexpr,
) -> None:
    """Grid: (rows, layers). results: [9, rows, layers], in the order in which they are stored below."""
    row, layer = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    numbers = tl.arange(0, padded)
    out = results + row * layers + layer
    # int64: what lies behind so many rows and layers may be further than 2^31.
    field = rows.to(tl.int64) * layers
    tap = tl.load(at + layer)
    own = streams + row * row_stride
    unit, peak, norm, nonfinite = _take_apart(own + tap * tap_stride, numbers, d)
    left, left_peak, left_norm, _ = _take_apart(own + tl.load(after + layer) * tap_stride, numbers, d)
    apart = _length(unit - left)
    apart = apart * apart
    growth = divide(left_peak, peak) * divide(left_norm, norm)
    update = tl.sqrt((growth - 1.0) * (growth - 1.0) + growth * apart)
    half = apart * 0.5
    # Comparisons in place of a maximum, which would let no NaN through.
    half = tl.where(half < least_apart, least_apart, half)
    tl.store(out, tl.log(peak) + (tl.log(norm) - half_log_d))
    tl.store(out + field, half_log_d - tl.log(norm))
    tl.store(out + 2 * field, tl.log(half) * 0.4342944819032518)
    tl.store(out + 3 * field, tl.where(update == float("inf"), float("nan"), update))
    tl.store(out + 4 * field, nonfinite)
    index = tl.load(last + row).to(tl.int64)
    if index >= 0:
        previous = _unit_of(
            index,
            streams,
            kept,
            rows,
            row_stride,
            tap_stride,
            tap,
            kept_stride,
            kept_layer_stride,
            layer,
            numbers,
            d,
        )
        later = unit - previous
        later_length = _length(later)
        tl.store(out + 5 * field, later_length)
        index = tl.load(before_last + row).to(tl.int64)
        if index >= 0:
            first = _unit_of(
                index,
                streams,
                kept,
                rows,
                row_stride,
                tap_stride,
                tap,
                kept_stride,
                kept_layer_stride,
                layer,
                numbers,
                d,
            )
            earlier = previous - first
            earlier_length = _length(earlier)
            a, b = divide(later, later_length), divide(earlier, earlier_length)
            tl.store(out + 6 * field, _length(a - b))
            tl.store(out + 7 * field, _length(a + b))
            tl.store(out + 8 * field, tl.minimum(later_length, earlier_length))

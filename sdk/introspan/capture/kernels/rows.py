"""Rows of a running forward in, chosen ones at their places in a buffer out, by one launch that a graph can record.

`capture/taps/gather.py` has the torch form that this is held against, and says what is promised.
"""

import triton
import triton.language as tl
from torch import Tensor

_CHUNK = 1024


@triton.jit
def _put(
    source: tl.tensor,
    slots: tl.tensor,
    into: tl.tensor,
    place: tl.tensor,
    count: tl.tensor,
    row_stride: tl.tensor,
    number_stride: tl.tensor,
    numbers: tl.tensor,
    width: tl.constexpr,
) -> None:
    slot = tl.load(slots + place)
    if (slot >= 0) & (slot < count):
        row = tl.load(source + slot * row_stride + numbers * number_stride, mask=numbers < width)
        tl.store(into + place * width + numbers, row, mask=numbers < width)


# Not specialised on how many rows there are: a graph is recorded for each size of batch, and none may compile anew. Nor
# on where numbers of a plan and counts lie in memory, which is another place for each tap.
@triton.jit(
    do_not_specialize=["source_count", "output_count", "places", "slots", "checked", "armed", "fired"]
)
def _copy(
    source: tl.tensor,
    output: tl.tensor,
    slots: tl.tensor,
    checked: tl.tensor,
    armed: tl.tensor,
    rows: tl.tensor,
    outputs: tl.tensor,
    fired: tl.tensor,
    source_count: tl.tensor,
    output_count: tl.tensor,
    places: tl.tensor,
    source_stride: tl.tensor,
    source_number_stride: tl.tensor,
    output_stride: tl.tensor,
    output_number_stride: tl.tensor,
    width: tl.constexpr,
    chunk: tl.constexpr,
) -> None:
    """Grid: (places of rows, and behind them of outputs; chunks of a row)."""
    place = tl.program_id(0).to(tl.int64)
    numbers = tl.program_id(1) * chunk + tl.arange(0, chunk)
    if place < places:
        _put(source, slots, rows, place, source_count, source_stride, source_number_stride, numbers, width)
    else:
        behind = place - places
        _put(
            output,
            checked,
            outputs,
            behind,
            output_count,
            output_stride,
            output_number_stride,
            numbers,
            width,
        )
    # No other program of this launch has to do with it, and the next launch comes behind this one.
    if (place == 0) & (tl.program_id(1) == 0):
        tl.store(fired, tl.load(fired) + tl.load(armed))


def gather(
    source: Tensor,
    output: Tensor,
    slots: Tensor,
    checked: Tensor,
    armed: Tensor,
    rows: Tensor,
    outputs: Tensor,
    fired: Tensor,
) -> None:
    """What a tap does; slots, checked, rows and outputs each in one piece."""
    places, width = rows.shape
    if source.shape[1:] != (width,) or output.shape[1:] != (width,):
        # A kernel would read behind the last row.
        raise ValueError(
            f"rows must be {width} numbers wide, got {tuple(source.shape)} and {tuple(output.shape)};"
            " a tap's buffers are made for the width of what it taps"
        )
    _copy[(places + outputs.shape[0], triton.cdiv(width, _CHUNK))](
        source, output, slots, checked, armed, rows, outputs, fired,
        source.shape[0], output.shape[0], places,
        source.stride(0), source.stride(1), output.stride(0), output.stride(1),
        width=width, chunk=min(_CHUNK, triton.next_power_of_2(width)),
    )  # fmt: skip

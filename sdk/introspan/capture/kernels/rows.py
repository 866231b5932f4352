"""Rows of a running forward in, chosen ones at their places in a buffer out: one launch, which a graph can record.

`capture/taps/gather.py` has the torch form that this is held against, and says what is promised.
"""

import torch
import triton
import triton.language as tl

_CHUNK = 1024


# Not specialised on how many rows there are: a graph is recorded for each size of batch, and none may compile anew.
@triton.jit(do_not_specialize=["count"])
def _copy(
    source: tl.tensor,
    slots: tl.tensor,
    into: tl.tensor,
    count: tl.tensor,
    row_stride: tl.tensor,
    number_stride: tl.tensor,
    slot_stride: tl.tensor,
    place_stride: tl.tensor,
    width: tl.constexpr,
    chunk: tl.constexpr,
) -> None:
    """Grid: (places, chunks of a row)."""
    place = tl.program_id(0).to(tl.int64)
    numbers = tl.program_id(1) * chunk + tl.arange(0, chunk)
    slot = tl.load(slots + place * slot_stride).to(tl.int64)
    if (slot >= 0) & (slot < count):
        row = tl.load(source + slot * row_stride + numbers * number_stride, mask=numbers < width)
        tl.store(into + place * place_stride + numbers, row, mask=numbers < width)


def gather_rows(source: torch.Tensor, slots: torch.Tensor, into: torch.Tensor) -> None:
    """Puts source[slots[p]] at into[p], where the source has such a row; other places stay as they are.

    source: [n, width]; slots: int [places]; into: [places, width], each row of it in one piece.
    """
    places, width = into.shape
    if not places:
        return
    _copy[(places, triton.cdiv(width, _CHUNK))](
        source, slots, into, source.shape[0], source.stride(0), source.stride(1), slots.stride(0), into.stride(0),
        width=width, chunk=min(_CHUNK, triton.next_power_of_2(width)),
    )  # fmt: skip

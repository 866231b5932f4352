"""Stream rows and the fixed map on a GPU in, 32 numbers of each row and layer out.

The torch form is `project` of `capture/stream/projection.py`, after `direction` of `residual.py` beside it. A kernel,
because a host may have allowed matrices of float32 to be multiplied with fewer bits, and then torch's product has three
digits.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from introspan.capture.kernels.stream_parts import divide

_CHUNK = 256


# Neither for batches nor for canaries, which are projected at other layers than traffic, compiled anew.
@triton.jit(do_not_specialize=["layers"])
def _project(
    streams: tl.tensor,
    taps: tl.tensor,
    map_: tl.tensor,
    results: tl.tensor,
    row_stride: tl.tensor,
    tap_stride: tl.tensor,
    root_d: tl.tensor,
    layers: tl.tensor,
    d: tl.constexpr,
    components: tl.constexpr,
    chunk: tl.constexpr,
) -> None:
    """Grid: (rows, layers). map_: [components, d]; results: [rows, layers, components]."""
    row, layer = tl.program_id(0).to(tl.int64), tl.program_id(1)
    vector = streams + row * row_stride + tl.load(taps + layer) * tap_stride
    each = tl.arange(0, components)
    tops = tl.zeros([chunk], tl.float32)
    for start in range(0, d, chunk):
        numbers = start + tl.arange(0, chunk)
        h = tl.load(vector + numbers, mask=numbers < d, other=0.0).to(tl.float32)
        tops = tl.maximum(tops, tl.abs(h))
    peak = tl.max(tops, 0)
    squares = tl.zeros([chunk], tl.float32)
    total = tl.zeros([components], tl.float32)
    for start in range(0, d, chunk):
        numbers = start + tl.arange(0, chunk)
        u = divide(tl.load(vector + numbers, mask=numbers < d, other=0.0).to(tl.float32), peak)
        squares += u * u
        places = each[:, None] * d + numbers[None, :]
        weights = tl.load(map_ + places, mask=(numbers < d)[None, :], other=0.0)
        total += tl.sum(weights * u[None, :], 1)
    norm = tl.sqrt(tl.sum(squares, 0))
    tl.store(results + (row * layers + layer) * components + each, divide(total, norm) * root_d)


def project(h: Tensor, taps: Tensor, map_: Tensor) -> Tensor:
    """P ĥ of rows [rows, taps, d] at some taps (int64 [layers]), from the map [32, d] → float32 [rows, layers, 32]."""
    rows, _, d = h.shape
    h = h if h.stride(2) == 1 else h.contiguous()
    results = h.new_empty(rows, taps.numel(), map_.shape[0], dtype=torch.float32)
    if results.numel():
        _project[(rows, taps.numel())](
            h, taps, map_.contiguous(), results, h.stride(0), h.stride(1), math.sqrt(d), taps.numel(),
            d=d, components=map_.shape[0], chunk=_CHUNK,
        )  # fmt: skip
    return results

"""A compute capability in; how much shared memory each kernel needs there, as JSON, out. No GPU is needed.

The functions that launch kernels are called with tensors that have no memory, and launching stops where the kernel is
compiled: what is compiled is what they ask for.
"""

import json
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from introspan.capture.attention import PagedKeys, Scoring
from introspan.capture.kernels.paged_attention import Lengths, paged_output, paged_statistics
from introspan.capture.kernels.projection import project
from introspan.capture.kernels.rows import gather_rows
from introspan.capture.kernels.stream import Earlier, stream_statistics
from introspan.capture.kernels.vocabulary import vocabulary_statistics
from introspan.capture.kv_layout import Split, StridedLayout

META = torch.device("meta")
ROWS, LAYERS = 5, 2


class _Driver:
    """Of a GPU that is not there."""

    def __init__(self, capability: int) -> None:
        self._capability = capability

    def get_current_device(self) -> int:
        return self._capability

    def get_current_stream(self, device: int) -> int:
        return 0 * device

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._capability, 32)


def _meta(*shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device=META)


def _attention(q_dtype: torch.dtype, stored: torch.dtype, heads: int, kv_heads: int, d: int) -> None:
    cache = _meta(50, kv_heads, 16, 2 * d, dtype=stored)
    layout = StridedLayout(Split.INSIDE, 16, d, stored)
    scale = _meta(dtype=torch.float32) if stored.itemsize == 1 else None
    sinks, slopes = _meta(heads, dtype=torch.float32), _meta(heads, dtype=torch.float32)
    lengths = Lengths(_meta(ROWS), 100_000)
    q = [_meta(ROWS, heads, d, dtype=q_dtype)] * LAYERS
    table = _meta(ROWS, 7000, dtype=torch.int32)
    keys = PagedKeys([cache] * LAYERS, table, layout, None if scale is None else [scale] * LAYERS)
    paged_statistics(q, keys, lengths, Scoring(0.1))
    form = Scoring(0.1, window=4096, softcap=30.0, alibi_slopes=slopes, sinks=sinks)
    paged_statistics(q, keys, lengths, form)
    one = PagedKeys([cache], table, layout, None if scale is None else [scale])
    paged_output(q[0], one, lengths, form)


def _streams(dtype: torch.dtype, d: int) -> None:
    h, at = _meta(ROWS, 18, d, dtype=dtype), _meta(8)
    earlier = Earlier(_meta(ROWS), _meta(ROWS), _meta(6, 8, d, dtype=dtype))
    stream_statistics(h, at, at, earlier)
    project(h, at, _meta(32, d, dtype=torch.float32))
    gather_rows(_meta(300, d, dtype=dtype), _meta(ROWS), _meta(ROWS, d, dtype=dtype))


def needs(capability: int) -> dict[str, int]:
    """By kernel, and how often it was compiled before: bytes of shared memory."""
    found: dict[str, int] = {}
    run = JITFunction.run

    # Any: what Triton hands from one of its functions to the next.
    def compile_only(self: Any, *arguments: Any, **keywords: Any) -> Any:
        kernel = run(self, *arguments, **keywords | {"warmup": True})
        name = f"{self.__name__.strip('_')} {kernel.hash[:8]}"
        found[name] = kernel.metadata.shared
        return kernel

    triton.runtime.driver.set_active(_Driver(capability))
    JITFunction.run = compile_only
    try:
        _attention(torch.bfloat16, torch.bfloat16, 32, 8, 128)
        _attention(torch.float32, torch.float32, 16, 16, 256)
        _attention(torch.float16, torch.float8_e5m2, 9, 3, 96)
        if capability >= 89:  # before, there is no such type
            _attention(torch.bfloat16, torch.float8_e4m3fn, 64, 8, 128)
        _streams(torch.bfloat16, 4096)
        _streams(torch.float32, 16_384)
        vocabulary_statistics(_meta(ROWS, 128_256, dtype=torch.bfloat16), _meta(ROWS))
    finally:
        JITFunction.run = run
    return found


if __name__ == "__main__":
    print(json.dumps(needs(int(sys.argv[1]))))

"""A compute capability in; how much shared memory each kernel needs there, and which batches compile it anew, out.

The functions that launch kernels are called with tensors that have no memory, and launching stops where the kernel is
compiled: what is compiled is what they ask for. No GPU is needed. What comes out is JSON.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from introspan.capture.attention.kv_layout import Split, StridedLayout
from introspan.capture.attention.statistics import PagedKeys, Scoring
from introspan.capture.kernels.paged_attention import Lengths, paged_output, paged_statistics
from introspan.capture.kernels.projection import project
from introspan.capture.kernels.rows import gather
from introspan.capture.kernels.sampler import ASKED, draws
from introspan.capture.kernels.stream import Earlier, stream_statistics
from introspan.capture.kernels.vocabulary import vocabulary_statistics

META = torch.device("meta")
LAYERS = 2


@dataclass(frozen=True)
class Batch:
    """What one step has, and another has not: rows, keys of the longest context, blocks of a table, tokens."""

    rows: int
    longest: int
    blocks: int
    tokens: int


FIRST = Batch(5, 100_000, 7000, 300)
OTHERS = (Batch(48, 31, 2, 16), Batch(1, 4096, 257, 1), Batch(7, 2_000_001, 125_001, 8192))


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


def _attention(
    q_dtype: torch.dtype, stored: torch.dtype, heads: int, kv_heads: int, d: int
) -> Callable[[Batch], None]:
    cache = _meta(50, kv_heads, 16, 2 * d, dtype=stored)
    layout = StridedLayout(Split.INSIDE, 16, d, stored)
    scale = _meta(dtype=torch.float32) if stored.itemsize == 1 else None
    sinks, slopes = _meta(heads, dtype=torch.float32), _meta(heads, dtype=torch.float32)

    def launch(batch: Batch) -> None:
        lengths = Lengths(_meta(batch.rows), batch.longest)
        q = [_meta(batch.rows, heads, d, dtype=q_dtype)] * LAYERS
        table = _meta(batch.rows, batch.blocks, dtype=torch.int32)
        keys = PagedKeys([cache] * LAYERS, table, layout, None if scale is None else [scale] * LAYERS)
        paged_statistics(q, keys, lengths, Scoring(0.1))
        form = Scoring(0.1, window=4096, softcap=30.0, alibi_slopes=slopes, sinks=sinks)
        paged_statistics(q, keys, lengths, form)
        one = PagedKeys([cache], table, layout, None if scale is None else [scale])
        paged_output(q[0], one, lengths, form)

    return launch


def _streams(dtype: torch.dtype, d: int) -> Callable[[Batch], None]:
    def launch(batch: Batch) -> None:
        layers = 8 if batch == FIRST else 33  # those of canaries are others than those of traffic
        h, at = _meta(batch.rows, 18, d, dtype=dtype), _meta(layers)
        earlier = Earlier(_meta(batch.rows), _meta(batch.rows), _meta(6, layers, d, dtype=dtype))
        stream_statistics(h, at, at, earlier)
        project(h, at, _meta(32, d, dtype=torch.float32))
        source, rows, checked = (_meta(count, d, dtype=dtype) for count in (batch.tokens, 96, 8))
        gather(source, source, _meta(96), _meta(8), _meta(1), rows, checked, _meta(1))

    return launch


def _queries_of_eight_bits(batch: Batch) -> None:
    # vLLM quantises queries in front of a backend whose cache is fp8; what is kept has the model's dtype.
    queries = _meta(batch.tokens, 4096, dtype=torch.float8_e4m3fn)
    attended, rows = (_meta(count, 4096, dtype=torch.bfloat16) for count in (batch.tokens, 96))
    gather(queries, attended, _meta(96), _meta(96), _meta(1), rows, rows, _meta(1))


def _logits(batch: Batch) -> None:
    logits, tokens = _meta(batch.rows, 128_256, dtype=torch.bfloat16), _meta(batch.rows)
    vocabulary_statistics(logits, tokens)
    draws(logits, tokens, _meta(ASKED, batch.rows, dtype=torch.float64))


def _launches(capability: int) -> list[Callable[[Batch], None]]:
    launches = [
        _attention(torch.bfloat16, torch.bfloat16, 32, 8, 128),
        _attention(torch.float32, torch.float32, 16, 16, 256),
        _attention(torch.float16, torch.float8_e5m2, 9, 3, 96),
        _streams(torch.bfloat16, 4096),
        _streams(torch.float32, 16_384),
        _logits,
    ]
    if capability >= 89:  # before, there is no such type
        launches += [_attention(torch.bfloat16, torch.float8_e4m3fn, 64, 8, 128), _queries_of_eight_bits]
    return launches


def needs(capability: int) -> dict[str, Any]:
    """shared_bytes: by kernel, and a part of its hash; anew: kernels that batches other than the first compiled."""
    found: dict[str, int] = {}
    run = JITFunction.run

    # Any: what Triton hands from one of its functions to the next.
    def compile_only(self: Any, *arguments: Any, **keywords: Any) -> Any:
        kernel = run(self, *arguments, **keywords | {"warmup": True})
        found[f"{self.__name__.strip('_')} {kernel.hash[:8]}"] = kernel.metadata.shared
        return kernel

    triton.runtime.driver.set_active(_Driver(capability))
    JITFunction.run = compile_only
    try:
        launches = _launches(capability)
        for launch in launches:
            launch(FIRST)
        first = dict(found)
        for batch in OTHERS:
            for launch in launches:
                launch(batch)
    finally:
        JITFunction.run = run
    return {"shared_bytes": first, "anew": sorted(found.keys() - first.keys())}


if __name__ == "__main__":
    print(json.dumps(needs(int(sys.argv[1]))))

"""The kernels of attention on the device in; whether they give what torch gives on the host, out.

Every layout of caches that vLLM has had from 0.20 to 0.33, every dtype of its keys, every way to score. The caches are
full of drawn numbers: that the layouts are vLLM's own is held by tests, which need no GPU.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from bench.gpu.checks.outcome import Check, outcomes, prepare, same, unwaited
from bench.gpu.scale import Scale
from introspan.capture.attention.kv_layout import gpu_layout
from introspan.capture.attention.statistics import (
    PagedKeys,
    Scoring,
    gather_blocks,
    paged_statistics,
    recompute_output,
)

# By name: the class that has it, and its axes as they lie in memory: blocks, heads of keys, tokens, numbers of keys and
# values (2: an axis of its own for those), layers.
_LAYOUTS = {
    "LBHNC": ("FlashInferImpl", "BHNC"),
    "LBNHC": ("FlashAttentionImpl", "BNHC"),
    "LHBNC": ("TritonAttentionImpl", "HBNC"),
    "BLNHC": ("FlashAttentionImpl", "BLNHC"),
    "2BNHC": ("FlashAttentionImpl", "2BNHC"),
    "2BHNC": ("FlashAttentionImpl", "2BHNC"),
    "B2NHC": ("TritonAttentionImpl", "B2NHC"),
    "B2HNC": ("FlashInferImpl", "B2HNC"),
}
_DTYPES = {
    "float32": (torch.float32, "auto"),
    "float16": (torch.float16, "auto"),
    "bfloat16": (torch.bfloat16, "auto"),
    "fp8_e4m3": (torch.float8_e4m3fn, "fp8"),
    "fp8_e5m2": (torch.float8_e5m2, "fp8_e5m2"),
}
_HEADS, _KV_HEADS, _BLOCK = 8, 2, 16
_LENGTHS = (1, 40, 150)
_LONG = (5_000, 17)

# Of float32 sums in another order.
_ENTROPY_NATS, _MASS, _OUTPUT = 2e-4, 2e-5, 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class _Case:
    """Queries [rows, heads, d], the keys they attend to, how many, and how they score; all on the host."""

    q: Tensor
    keys: PagedKeys
    lengths: tuple[int, ...]
    scoring: Scoring

    def there(self, device: torch.device) -> tuple[Tensor, PagedKeys]:
        """Queries and keys on a device, laid out alike."""
        keys = self.keys
        scales = None if keys.scales is None else [scale.to(device) for scale in keys.scales]
        caches = [_laid_out(cache, device) for cache in keys.caches]
        return self.q.to(device), PagedKeys(caches, keys.block_table.to(device), keys.layout, scales)


def run(scale: Scale) -> dict[str, str]:
    """How each layout with each dtype came out, statistics and outputs."""
    device, forms = prepare(scale), _forms()
    places = [(layout, dtype) for layout in _LAYOUTS for dtype in _DTYPES]
    names = list(forms)
    checks = dict[str, Check]()
    for number, (layout, dtype) in enumerate(places):
        form = names[number % len(names)]
        case = _case(layout, dtype, 64, forms[form], _LENGTHS, number)
        checks[f"attention {layout} {dtype} {form}"] = partial(_check, case, device)
    for size in (96, 128, 256):
        case = _case("LBNHC", "bfloat16", size, forms["plain"], _LENGTHS, size)
        checks[f"attention of head size {size}"] = partial(_check, case, device)
    case = _case("LBHNC", "bfloat16", 64, forms["window"], _LONG, 1)
    checks["attention of many ranges of keys"] = partial(_check, case, device)
    return outcomes(checks)


def _forms() -> dict[str, Scoring]:
    slopes, sinks = torch.linspace(0.01, 0.3, _HEADS), torch.linspace(-2.0, 4.0, _HEADS)
    return {
        "plain": Scoring(0.2),
        "window": Scoring(0.2, window=50),
        "everything": Scoring(0.3, window=70, softcap=8.0, alibi_slopes=slopes, sinks=sinks),
    }


def _case(layout: str, dtype: str, size: int, scoring: Scoring, lengths: tuple[int, ...], seed: int) -> _Case:
    implementation, order = _LAYOUTS[layout]
    stored, cache_dtype = _DTYPES[dtype]
    draw = torch.Generator().manual_seed(seed)
    blocks = -(-max(lengths) // _BLOCK)
    count = len(lengths) * blocks + 3
    cache = _cache(order, count, size, stored, draw)
    is_scaled = stored.itemsize == 1
    found = gpu_layout(
        implementation, cache.view(torch.uint8) if is_scaled else cache, _KV_HEADS, size, cache_dtype
    )
    table = torch.randperm(count, generator=draw)[: len(lengths) * blocks].view(len(lengths), blocks).int()
    q = torch.randn(len(lengths), _HEADS, size, generator=draw).to(torch.bfloat16 if is_scaled else stored)
    keys = PagedKeys([cache], table, found, [torch.tensor(0.75)] if is_scaled else None)
    return _Case(q, keys, lengths, scoring)


def _cache(order: str, count: int, size: int, dtype: torch.dtype, draw: torch.Generator) -> Tensor:
    """A cache in logical order whose axes lie in memory in the given one, full of drawn numbers."""
    sizes = {
        "B": count,
        "H": _KV_HEADS,
        "N": _BLOCK,
        "C": size if "2" in order else 2 * size,
        "2": 2,
        "L": 3,
    }
    memory = torch.randn([sizes[axis] for axis in order], generator=draw).to(dtype)
    if "L" in order:
        memory, order = memory.select(order.index("L"), 1), order.replace("L", "")
    logical = ("2BNHC" if order[0] == "2" else "B2NHC") if "2" in order else "BHNC"
    return memory.permute([order.index(axis) for axis in logical])


def _laid_out(cache: Tensor, device: torch.device) -> Tensor:
    """The same on a device, with the same strides, gaps among them."""
    there = torch.empty_strided(cache.shape, cache.stride(), dtype=cache.dtype, device=device)
    # Of bytes: torch copies no fp8 between strides on every device.
    bits = torch.uint8 if cache.element_size() == 1 else cache.dtype
    there.view(bits).copy_(cache.view(bits))
    return there


def _check(case: _Case, device: torch.device) -> None:
    from introspan.capture.kernels.paged_attention import on_device
    from introspan.capture.kernels.paged_attention import paged_output as output_there
    from introspan.capture.kernels.paged_attention import paged_statistics as statistics_there

    lengths = np.array(case.lengths)
    expected = paged_statistics([case.q], case.keys, np.arange(len(lengths)), lengths, case.scoring)
    q, keys = case.there(device)
    there = on_device(lengths, device)
    statistics_there([q], keys, there, case.scoring)  # which compiles it; that may wait
    with unwaited(device):
        found = statistics_there([q], keys, on_device(lengths, device), case.scoring)
    for name, tolerance in (("entropy", _ENTROPY_NATS), ("sink_mass", _MASS), ("recent_mass", _MASS)):
        same(getattr(found, name), getattr(expected, name), tolerance, name)
    cache, table = case.keys.caches[0], case.keys.block_table
    k, v = gather_blocks(cache, table, torch.from_numpy(lengths), case.keys.layout)
    key_scale = case.keys.scales[0] if case.keys.scales is not None else torch.tensor(1.0)
    expected_output = recompute_output(case.q, k * key_scale, v, torch.from_numpy(lengths), case.scoring)
    same(output_there(q, keys, there, case.scoring), expected_output, _OUTPUT, "output")

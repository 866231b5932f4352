"""A layer's modules in; its attention, or why that cannot be measured, out."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

_CPU = "CPUAttentionBackendImpl"
_GPU = frozenset({"FlashAttentionImpl", "TritonAttentionImpl", "FlashInferImpl"})
"""Implementations of GPU backends whose caches were looked at: see `attention/kv_layout.py`."""

_PLAIN = frozenset({"auto", "float32", "float16", "bfloat16"})
_FP8 = frozenset({"fp8", "fp8_e4m3", "fp8_e5m2"})


def find_attention(layer: nn.Module) -> list[nn.Module]:
    """The modules of attention in a layer, as vLLM makes them."""
    return [child for child in layer.modules() if _is_attention(child)]


def refusal(found: list[nn.Module]) -> str | None:
    """Why a layer's attention cannot be measured, or None where it can."""
    if len(found) != 1:
        return f"a layer has {len(found)} attention modules, exactly 1 is understood"
    # Any: attributes of vLLM's attention, of whichever release and backend.
    module: Any = found[0]
    impl = module.impl
    name = type(impl).__name__
    if "MLA" in name:
        return f"{name} keeps latent keys (MLA)"
    if name != _CPU and name not in _GPU:
        return f"the cache layout of {name} is not known"
    dtype = str(getattr(impl, "kv_cache_dtype", "auto"))
    if dtype not in (_PLAIN if name == _CPU else _PLAIN | _FP8):
        return f"the KV cache is quantised ({dtype})"
    # FlashInfer's has none: it is made for decoders alone.
    kind = getattr(impl, "attn_type", getattr(module, "attn_type", "decoder"))
    if str(kind) not in {"decoder", "AttentionType.DECODER"}:
        return f"attention of type {kind} is not causal"
    return None if name == _CPU else next(_of_gpu(module, name, is_fp8=dtype in _FP8), None)


# Any: as above.
def _of_gpu(module: Any, name: str, *, is_fp8: bool) -> Iterator[str]:
    """What of a GPU's attention is not what its kernels' common form is."""
    impl, own = module.impl, type(module).__name__
    if own != "Attention":
        yield f"{own} lays out which keys a query attends to in a way of its own"
    if getattr(module, "head_size_v", impl.head_size) != impl.head_size:
        yield f"values of {module.head_size_v} numbers are not as long as keys of {impl.head_size}"
    if getattr(impl, "use_alibi_sqrt", False):
        yield "scores change with the square root of how far a key is away"
    if getattr(impl, "chunk_lookback", -1) > -1:
        yield "attention in chunks of its own (chunk_lookback) is not a window"
    if not is_fp8:
        return
    if torch.version.hip is not None:
        yield "fp8 of AMD's GPUs has another bias"
    scales = [getattr(module, scale, None) for scale in ("_k_scale", "_v_scale", "_q_scale")]
    if any(scale is None or scale.numel() != 1 for scale in scales):
        yield "the fp8 cache has scales for each head, one for all is understood"
    if name == "FlashInferImpl" and getattr(module, "query_quant", None) is None:
        yield "FlashInfer may quantise queries itself, out of sight, where the cache is fp8"


def _is_attention(module: nn.Module) -> bool:
    return hasattr(module, "impl") and hasattr(module, "kv_cache") and hasattr(module, "layer_name")

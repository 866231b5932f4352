"""Tapped layers in; those that are computed together, with how they score and where their keys lie, out."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from introspan.capture.attention.kv_layout import KvLayout, StridedLayout
from introspan.capture.attention.statistics import Scoring
from introspan.capture.crossing import cross
from introspan.capture.taps.attention import AttentionTap

LayoutT = TypeVar("LayoutT", KvLayout, StridedLayout)


@dataclass(frozen=True, slots=True, eq=False)
class Group(Generic[LayoutT]):
    """Layers that are computed together: same scoring, layout and block table; members are places in the taps."""

    members: list[int]
    scoring: Scoring
    layout: LayoutT
    tables: list[Tensor] = field(default_factory=list)
    """Block ids of the waiting rows, [rows of a step, blocks] a step."""


def grouped(
    taps: Sequence[AttentionTap],
    layout_of: Callable[[AttentionTap], LayoutT],
    table_of: Callable[[AttentionTap], Tensor],
) -> list[Group[LayoutT]]:
    """The layers by what they have in common. table_of: the block table that a layer has in the step at hand."""
    layouts = [layout_of(tap) for tap in taps]
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for i, tap in enumerate(taps):
        impl = tap.point.module.impl
        own = i if impl.sinks is not None or impl.alibi_slopes is not None else -1
        form = (impl.scale, window_of(impl), impl.logits_soft_cap)
        groups[form, tuple(cache_of(tap).shape), layouts[i], table_of(tap).data_ptr(), own].append(i)
    return [Group(members, _scoring(taps[members[0]]), layouts[members[0]]) for members in groups.values()]


# Any: vLLM's attention implementation is not typed.
def window_of(impl: Any) -> int | None:
    """How many keys a query attends to, its own included; None for all.

    On a CPU vLLM says so, or −1; on GPUs (how many before the query's own, how many behind it), each −1 for all.
    """
    said = impl.sliding_window
    window = int(said) if isinstance(said, int) else int(said[0]) + 1
    return window if window > 0 else None


def cache_of(tap: AttentionTap) -> Tensor:
    """The layer's KV cache as vLLM has bound it by now; that is after the model was loaded."""
    cache = tap.point.module.kv_cache
    assert isinstance(cache, Tensor)
    return cache


def _scoring(tap: AttentionTap) -> Scoring:
    impl = tap.point.module.impl
    return Scoring(
        scale=float(impl.scale),
        window=window_of(impl),
        softcap=float(impl.logits_soft_cap or 0.0) or None,
        alibi_slopes=_beside(tap, impl.alibi_slopes),
        sinks=_beside(tap, impl.sinks),
    )


# Any: a tensor, a list of numbers, or None.
def _beside(tap: AttentionTap, given: Any) -> Tensor | None:
    """Numbers of a layer's heads, float32, where its queries are, without waiting for what the device has to do."""
    if given is None:
        return None
    return cross(torch.as_tensor(given).float(), tap.q.device)

"""Query rows and keys in, entropy and masses of each head's attention out; the weights never exist.

One pass over the keys in chunks, with running maximum m, l = Σ e^(s−m) and t = Σ e^(s−m)(s−m):
H = ln l − t/l. Memory is O(rows × heads × chunk), whatever the number of keys.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from introspan.capture.kv_layout import KvLayout
from introspan_wire.signals import RECENT_KEYS

# Finite, so that a masked key adds 0 · (s − m) = 0 to t where −inf would add NaN.
_MASKED = -1e30

# K blocks gathered at a time, over all layers and rows.
_BLOCKS_AT_ONCE = 32


@dataclass(frozen=True, slots=True, eq=False)
class Scoring:
    """How a layer turns query · key into scores: scale, then soft cap c·tanh(s/c), then ALiBi.

    window: keys attended, the query's own included; None = all. alibi_slopes: float32 [heads]. sinks:
    learned logits [heads], or [layers, 1, heads], that take a share of the softmax without a key; a sink
    counts in the entropy as one more outcome.
    """

    scale: float
    window: int | None = None
    softcap: float | None = None
    alibi_slopes: Tensor | None = None
    sinks: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class AttentionStatistics:
    """Of each query row and head, float32, shaped like q without its last axis; NaN = not measured.

    entropy in nats, [0, ln n] (Zhai et al. 2303.06296); sink_mass: weight on key 0, NaN where a sliding
    window has left it behind (Xiao et al. 2309.17453); recent_mass: weight on the last 64 attended keys. A
    row with a score that is not finite gives NaN.
    """

    entropy: Tensor
    sink_mass: Tensor
    recent_mass: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Partial:
    """m, l, t over the keys seen so far and the part of l that belongs to the recent ones."""

    m: Tensor
    l: Tensor  # noqa: E741 - the name it has in the formula
    t: Tensor
    recent: Tensor

    def merge(self, other: "_Partial") -> "_Partial":
        m = torch.maximum(self.m, other.m)
        ours, theirs = self.m - m, other.m - m
        a, b = ours.exp(), theirs.exp()
        return _Partial(
            m,
            self.l * a + other.l * b,
            (self.t + self.l * ours) * a + (other.t + other.l * theirs) * b,
            self.recent * a + other.recent * b,
        )


@dataclass(frozen=True, slots=True, eq=False)
class PagedKeys:
    """Where keys lie: the KV cache of each layer, block ids [rows, blocks] common to them, the packing."""

    caches: Sequence[Tensor]
    block_table: Tensor
    layout: KvLayout


def statistics(
    q: Tensor, k: Tensor, lengths: Tensor, scoring: Scoring, chunk_keys: int = 2048
) -> AttentionStatistics:
    """Statistics of rows whose keys are already gathered.

    q: [rows, heads, d]; k: [rows, kv_heads, keys, d], padded at the end; lengths: int [rows], keys of each
    row before any window.
    """
    total: _Partial | None = None
    first_score = torch.empty(0)
    for start in range(0, k.shape[2], chunk_keys):
        chunk = k[:, :, start : start + chunk_keys].to(torch.float32).transpose(-1, -2)
        positions = torch.arange(start, start + chunk.shape[-1], device=k.device).view(1, 1, -1)
        s = _scores(q.unsqueeze(0), chunk[None, :, None], positions, lengths, scoring)
        part = _partial(s, positions, lengths)
        total = part if total is None else total.merge(part)
        if start == 0:
            first_score = s[:, :, 0, :, 0]
    assert total is not None
    result = _finish(total, first_score, lengths, scoring)
    return AttentionStatistics(result.entropy[0], result.sink_mass[0], result.recent_mass[0])


def paged_statistics(
    q: Tensor, keys: PagedKeys, lengths: Tensor, scoring: Scoring, blocks_at_once: int = _BLOCKS_AT_ONCE
) -> AttentionStatistics:
    """Statistics of rows whose keys lie in paged caches, for several layers of one form at once.

    q: [layers, rows, heads, d]; lengths: int64 [rows] on the host, keys of each row before any window. Blocks
    wholly before a window are not read: they may belong to another request by now.
    """
    layers, rows = q.shape[:2]
    layout, heads = keys.layout, keys.caches[0].shape[1]
    table, first_key, blocks = _attended_blocks(keys.block_table, lengths, scoring.window, layout.block_size)
    step = min(blocks, max(1, blocks_at_once // (layers * rows)))
    # One buffer for all chunks: a fresh one each time would cost more in page faults than the copy into it.
    buffer = q.new_empty(
        layers * rows * step * heads * layout.head_size * layout.block_size, dtype=torch.float32
    )
    total: _Partial | None = None
    first_score = buffer
    for start in range(0, blocks, step):
        ids = table[:, start : start + step].reshape(-1)
        shape = (layers, len(ids), heads, layout.head_size, layout.block_size)
        k = buffer[: math.prod(shape)].view(shape)
        for cache, layer_keys in zip(keys.caches, k.unbind(), strict=True):
            layout.read_keys(cache, ids, layer_keys)
        chunk = k.view(layers, rows, -1, *shape[2:])
        span = torch.arange(start * layout.block_size, (start + chunk.shape[2]) * layout.block_size)
        positions = (span if first_key is None else first_key + span).view(
            -1, chunk.shape[2], layout.block_size
        )
        s = _scores(q, chunk, positions, lengths, scoring)
        part = _partial(s, positions, lengths)
        total = part if total is None else total.merge(part)
        if start == 0:
            first_score = s[:, :, 0, :, 0]
    assert total is not None
    return _finish(total, first_score, lengths, scoring)


def recompute_output(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, scoring: Scoring) -> Tensor:
    """Attention output of rows from their gathered keys and values, to compare with the backend's.

    q: [rows, heads, d]; k, v: [rows, kv_heads, keys, d]; lengths: int [rows] → float32 [rows, heads · d].
    """
    positions = torch.arange(k.shape[2], device=k.device).view(1, 1, -1)
    keys = k.to(torch.float32).transpose(-1, -2)
    s = _scores(q.unsqueeze(0), keys[None, :, None], positions, lengths, scoring)[0, :, 0]
    if scoring.sinks is not None:
        s = torch.cat([s, scoring.sinks.to(torch.float32).view(1, -1, 1).expand(*s.shape[:2], 1)], dim=-1)
    p = s.softmax(dim=-1)[..., : k.shape[2]]
    grouped = p.view(p.shape[0], v.shape[1], -1, p.shape[-1])
    return torch.matmul(grouped, v.to(torch.float32)).flatten(1)


def gather_blocks(
    cache: Tensor, block_table: Tensor, lengths: Tensor, layout: KvLayout
) -> tuple[Tensor, Tensor]:
    """Keys and values of rows, gathered whole from one layer's cache: two of [rows, kv_heads, keys, d]."""
    table, _, blocks = _attended_blocks(block_table, lengths, None, layout.block_size)
    ids = table[:, :blocks].reshape(-1)
    k = cache.new_empty(len(ids), cache.shape[1], layout.head_size, layout.block_size, dtype=torch.float32)
    v = torch.empty_like(k).view(*k.shape[:2], layout.block_size, layout.head_size)
    layout.read_keys(cache, ids, k)
    layout.read_values(cache, ids, v)
    by_row = (len(table), blocks, *v.shape[1:])
    k = k.transpose(-1, -2).reshape(by_row)
    return k.transpose(1, 2).flatten(2, 3), v.view(by_row).transpose(1, 2).flatten(2, 3)


def _attended_blocks(
    block_table: Tensor, lengths: Tensor, window: int | None, block_size: int
) -> tuple[Tensor, Tensor | None, int]:
    """Block ids from each row's first attended one on, the position of its first key (None = 0), the most blocks."""
    longest = int(lengths.max())
    if window is None or longest <= window:
        return block_table, None, -(-longest // block_size)
    first = (lengths - window).clamp(min=0) // block_size
    blocks = int(((lengths - 1) // block_size - first).max()) + 1
    columns = (first.unsqueeze(1) + torch.arange(blocks)).clamp(max=block_table.shape[1] - 1)
    return block_table.gather(1, columns), first.unsqueeze(1) * block_size, blocks


def _scores(q: Tensor, k: Tensor, positions: Tensor, lengths: Tensor, scoring: Scoring) -> Tensor:
    """Scores of a chunk, masked where a row does not attend.

    q: [layers, rows, heads, d]; k: [layers, rows, blocks, kv_heads, d, keys]; positions: [rows or 1, blocks,
    keys] → [layers, rows, blocks, heads, keys].
    """
    layers, rows, heads, d = q.shape
    grouped = (q.to(torch.float32) * scoring.scale).view(layers, rows, 1, k.shape[3], -1, d)
    s = torch.matmul(grouped, k).flatten(3, 4)
    n = lengths.view(-1, 1, 1)
    if scoring.softcap is not None:
        s = torch.tanh(s / scoring.softcap) * scoring.softcap
    if scoring.alibi_slopes is not None:
        distance = (positions - n + 1).to(torch.float32).unsqueeze(2)
        s = s + scoring.alibi_slopes.view(1, 1, heads, 1) * distance
    hidden = positions >= n
    if scoring.window is not None:
        hidden |= positions < n - scoring.window
    return s.masked_fill_(hidden.unsqueeze(2), _MASKED)


def _partial(s: Tensor, positions: Tensor, lengths: Tensor) -> _Partial:
    m = s.amax(dim=(2, 4), keepdim=True)
    x = s - m
    e = x.exp()
    is_recent = (positions >= lengths.view(-1, 1, 1) - RECENT_KEYS).unsqueeze(2)
    return _Partial(
        m[:, :, 0, :, 0], e.sum(dim=(2, 4)), (e * x).sum(dim=(2, 4)), (e * is_recent).sum(dim=(2, 4))
    )


def _finish(total: _Partial, first_score: Tensor, lengths: Tensor, scoring: Scoring) -> AttentionStatistics:
    if scoring.sinks is not None:
        logits = scoring.sinks.to(torch.float32).expand_as(total.m)
        total = total.merge(
            _Partial(logits, torch.ones_like(logits), torch.zeros_like(logits), torch.zeros_like(logits))
        )
    entropy = (total.l.log() - total.t / total.l).clamp(min=0.0)
    sink_mass = (first_score - total.m).exp() / total.l
    if scoring.window is not None:
        sink_mass = sink_mass.masked_fill((lengths > scoring.window).view(-1, 1), float("nan"))
    return AttentionStatistics(entropy, sink_mass, total.recent / total.l)

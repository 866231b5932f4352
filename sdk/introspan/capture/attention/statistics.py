"""Query rows and keys in, entropy and masses of each head's attention out; the weights never exist.

One pass over the keys in chunks, with running maximum m, l = Σ e^(s−m) and t = Σ e^(s−m)(s−m):
H = ln l − t/l. Memory is O(rows × heads × chunk), whatever the number of keys. The rows of a request are computed
together: reading its keys is most of the cost. On a GPU the kernels of `kernels/` compute the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from introspan.capture.attention.kv_layout import KvLayout, StridedLayout
from introspan_wire.signals import RECENT_KEYS

# Finite, so that a row that attends to none of a chunk's keys has a maximum to merge.
_MASKED = -1e30

# e^x of less is no longer a normal float32, with which a core computes many times as long.
_NEGLIGIBLE = -80.0

# K blocks of one layer gathered at a time: few enough to be in the core's cache still when they are used.
_BLOCKS_AT_ONCE = 16

# What is kept of a row and head while its keys pass: m, l, t, and the parts of l of key 0 and of the recent keys.
_M, _L, _T, _SINK, _RECENT = range(5)


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
    score of −Inf has no weight; any other that is not finite gives its row and head NaN.
    """

    entropy: Tensor
    sink_mass: Tensor
    recent_mass: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class PagedKeys:
    """Where keys lie: the KV cache of each layer, block ids [rows, blocks] common to them, the packing.

    scales: of each layer what its keys are to be multiplied with, float32 scalars (fp8 caches); None = nothing.
    """

    caches: Sequence[Tensor]
    block_table: Tensor
    layout: KvLayout | StridedLayout
    scales: Sequence[Tensor] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Requests:
    """Rows by the request whose keys they attend to, requests that attend to more blocks first.

    rows: int64 [requests, rows], the one with most keys first, the last again where a request has fewer; lengths:
    their keys, shaped alike; table: block ids from the first attended one on; first_key: the position at which that
    begins; blocks: how many are attended.
    """

    rows: Tensor
    lengths: Tensor
    table: Tensor
    first_key: Tensor
    blocks: list[int]


@dataclass(frozen=True, slots=True, eq=False)
class _Sight:
    """What rows see of some keys; all broadcast to scores [requests, blocks, kv_heads, rows, group, keys].

    behind: float32, a key's position less its query's; recent: float32, 1 or 0.
    """

    behind: Tensor
    hidden: Tensor
    recent: Tensor


def paged_statistics(
    q: Sequence[Tensor],
    keys: PagedKeys,
    request: NDArray[np.int64],
    lengths: NDArray[np.int64],
    scoring: Scoring,
    blocks_at_once: int = _BLOCKS_AT_ONCE,
) -> AttentionStatistics:
    """Statistics [layers, rows, heads] of rows whose keys lie in paged caches, for layers of one form.

    q: of each layer [rows, heads, d]; request: [rows], a number for each request, which has its keys in the blocks
    of its row with most of them; lengths: [rows], keys of each row before any window. Blocks wholly before a window
    are not read: they may belong to another request by now.
    """
    layout = keys.layout
    by = _by_request(request, lengths, keys.block_table, layout.block_size, scoring.window)
    queries = _queries(q, by.rows, layout.kv_heads(keys.caches[0]))
    if keys.scales is not None:
        queries *= torch.stack(list(keys.scales)).view(-1, *[1] * (queries.dim() - 1))
    total = queries.new_empty(5, *queries.shape[:-1])
    for some, start, step in _chunks(by.blocks, blocks_at_once):
        ids = by.table[some, start : start + step]
        left = int((by.lengths[some, 0] - by.first_key[some]).max()) - start * layout.block_size
        # Keys that no row has reached yet are not worth reading; tiles are of 16.
        width = layout.block_size if step > 1 else min(layout.block_size, -(-left // 16) * 16)
        at = torch.arange(start, start + step).view(-1, 1) * layout.block_size + torch.arange(width)
        sight = _sight(by.first_key[some].view(-1, 1, 1) + at, by.lengths[some], scoring.window)
        # The first chunk needs no merging.
        part = total[:, :, some] if start == 0 else torch.empty_like(total[:, :, some])
        k = queries.new_empty(ids.numel(), queries.shape[2], layout.head_size, width)
        s = queries.new_empty(*ids.shape, *queries.shape[2:-1], width)
        e = torch.empty_like(s)
        for layer, cache in enumerate(keys.caches):
            layout.read_keys(cache, ids.flatten(), k)
            _score(queries[layer, some], k, sight, scoring, s)
            _reduce(s, e, sight, part[:, layer])
        if start > 0:
            part[_SINK] = 0.0
            _merge(total[:, :, some], part)
    return _finish(_by_row(total, by.rows, lengths.size), torch.from_numpy(lengths), scoring)


def _by_row(total: Tensor, rows: Tensor, count: int) -> Tensor:
    """From requests back to rows, and from groups of heads to heads; rows: those of each request, some twice."""
    place = np.empty(count, np.int64)
    place[rows.flatten().numpy()] = np.arange(rows.numel())
    return total.transpose(3, 4).flatten(4).flatten(2, 3).index_select(2, torch.from_numpy(place))


def recompute_output(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, scoring: Scoring) -> Tensor:
    """Attention output of rows from their gathered keys and values, to compare with the backend's.

    q: [rows, heads, d]; k, v: [rows, kv_heads, keys, d]; lengths: int [rows] → float32 [rows, heads · d].
    """
    rows, kv_heads, count = k.shape[:3]
    queries = _queries([q], torch.arange(rows).view(-1, 1), kv_heads)[0]
    sight = _sight(torch.arange(count).view(1, 1, -1), lengths.view(-1, 1), scoring.window)
    s = queries.new_empty(rows, 1, *queries.shape[1:-1], count)
    _score(queries, k.to(torch.float32).transpose(-1, -2), sight, scoring, s)
    s = s.view(rows, q.shape[1], count)
    if scoring.sinks is not None:
        s = torch.cat([s, scoring.sinks.to(torch.float32).view(1, -1, 1).expand(*s.shape[:2], 1)], dim=-1)
    p = s.softmax(dim=-1)[..., :count].view(rows, kv_heads, -1, count)
    return torch.matmul(p, v.to(torch.float32)).flatten(1)


def gather_blocks(
    cache: Tensor, block_table: Tensor, lengths: Tensor, layout: KvLayout | StridedLayout
) -> tuple[Tensor, Tensor]:
    """Keys and values of rows, gathered whole from one layer's cache: two of [rows, kv_heads, keys, d]."""
    blocks = -(-int(lengths.max()) // layout.block_size)
    ids = block_table[:, :blocks].flatten()
    shape = (len(ids), layout.kv_heads(cache), layout.head_size, layout.block_size)
    k = cache.new_empty(shape, dtype=torch.float32)
    v = torch.empty_like(k).view(*k.shape[:2], layout.block_size, layout.head_size)
    layout.read_keys(cache, ids, k)
    layout.read_values(cache, ids, v)
    by_row = (len(block_table), blocks, *v.shape[1:])
    k = k.transpose(-1, -2).reshape(by_row)
    return k.transpose(1, 2).flatten(2, 3), v.view(by_row).transpose(1, 2).flatten(2, 3)


def _by_request(
    request: NDArray[np.int64],
    lengths: NDArray[np.int64],
    table: Tensor,
    block_size: int,
    window: int | None,
) -> _Requests:
    order = np.lexsort((lengths, request))
    counts = np.unique(request, return_counts=True)[1][:, None]
    nth = np.minimum(np.arange(counts.max()), counts - 1)
    rows = order[counts.cumsum()[:, None] - 1 - nth]
    most, least = lengths[rows[:, 0]], lengths[rows[:, -1]]
    first = np.zeros_like(most) if window is None else np.maximum(least - window, 0) // block_size
    blocks = (most - 1) // block_size - first + 1
    falling = np.argsort(-blocks)
    rows, first, blocks = rows[falling], first[falling], blocks[falling]
    columns = torch.from_numpy(np.minimum(first[:, None] + np.arange(blocks[0]), table.shape[1] - 1))
    return _Requests(
        rows=torch.from_numpy(rows),
        lengths=torch.from_numpy(lengths[rows]),
        table=table.index_select(0, torch.from_numpy(rows[:, 0].copy())).gather(1, columns).long(),
        first_key=torch.from_numpy(first * block_size),
        blocks=blocks.tolist(),
    )


def _queries(q: Sequence[Tensor], rows: Tensor, kv_heads: int) -> Tensor:
    """Of each layer [rows, heads, d], by request and key head: float32 [layers, requests, kv_heads, rows, group, d]."""
    heads, d = q[0].shape[1:]
    shape = (len(q), len(rows), kv_heads, rows.shape[1], heads // kv_heads, d)
    queries = q[0].new_empty(shape, dtype=torch.float32)
    for layer, out in zip(q, queries.unbind(), strict=True):
        picked = layer.index_select(0, rows.flatten())
        out.copy_(picked.view(*rows.shape, kv_heads, -1, d).transpose(1, 2))
    return queries


def _chunks(blocks: list[int], at_once: int) -> Iterator[tuple[slice, int, int]]:
    """Requests that are read together, from which of their blocks on, and how many; blocks are in falling order."""
    for low in range(0, len(blocks), at_once):
        start = 0
        while active := sum(count > start for count in blocks[low : low + at_once]):
            step = min(at_once // active, blocks[low] - start)
            yield slice(low, low + active), start, step
            start += step


def _sight(positions: Tensor, lengths: Tensor, window: int | None) -> _Sight:
    """positions: int64 [requests or 1, blocks, keys]; lengths: int64 [requests, rows]."""
    behind = positions[:, :, None, None, None] - (lengths[:, None, None, :, None, None] - 1)
    hidden = behind > 0
    if window is not None:
        hidden |= behind <= -window
    return _Sight(behind.float(), hidden, (behind > -RECENT_KEYS).float())


def _score(q: Tensor, k: Tensor, sight: _Sight, scoring: Scoring, out: Tensor) -> None:
    """Scores, masked where a row does not attend, into out [requests, blocks, kv_heads, rows, group, keys].

    q: [requests, kv_heads, rows, group, d]; k: [requests · blocks, kv_heads, d, keys].
    """
    requests, blocks, kv_heads, _, _, width = out.shape
    by_block = q.flatten(2, 3).unsqueeze(1).expand(-1, blocks, -1, -1, -1).flatten(0, 2)
    flat = out.view(requests * blocks * kv_heads, -1, width)
    torch.baddbmm(flat, by_block, k.flatten(0, 1), beta=0, alpha=scoring.scale, out=flat)
    if scoring.softcap is not None:
        out.div_(scoring.softcap).tanh_().mul_(scoring.softcap)
    if scoring.alibi_slopes is not None:
        out += scoring.alibi_slopes.view(kv_heads, 1, -1, 1) * sight.behind
    out.masked_fill_(sight.hidden, _MASKED)


def _reduce(s: Tensor, e: Tensor, sight: _Sight, out: Tensor) -> None:
    """Into out [5, requests, kv_heads, rows, group], key 0 being the first of s; s and e are overwritten."""
    keys = (1, 5)
    torch.amax(s, keys, out=out[_M])
    s -= out[_M, :, None, ..., None]
    torch.exp(s.clamp_(min=_NEGLIGIBLE), out=e)
    out[_SINK] = e[:, 0, ..., 0]
    torch.sum(e, keys, out=out[_L])
    torch.sum(s.mul_(e), keys, out=out[_T])
    torch.sum(e.mul_(sight.recent), keys, out=out[_RECENT])


def _merge(total: Tensor, part: Tensor) -> None:
    """Adds what was kept of other keys to total; both [5, ...], part is overwritten."""
    m = torch.maximum(total[_M], part[_M])
    for sums in (total, part):
        lower = sums[_M] - m
        sums[_T] += sums[_L] * lower
        sums[_L:].mul_(lower.exp())
    total[_M] = m
    total[_L:] += part[_L:]


def _finish(total: Tensor, lengths: Tensor, scoring: Scoring) -> AttentionStatistics:
    """total: [5, layers, rows, heads]."""
    if scoring.sinks is not None:
        logits = torch.zeros_like(total)
        logits[_M], logits[_L] = scoring.sinks, 1.0
        _merge(total, logits)
    _, l, t, sink, recent = total.unbind()  # noqa: E741 - the name it has in the formula
    entropy, sink_mass = (l.log() - t / l).clamp(min=0.0), sink / l
    if scoring.window is not None:
        sink_mass = sink_mass.masked_fill((lengths > scoring.window).view(-1, 1), float("nan"))
    return AttentionStatistics(entropy, sink_mass, recent / l)

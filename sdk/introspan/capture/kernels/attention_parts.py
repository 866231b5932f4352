"""Query rows and a range of their paged keys in; what that range adds to each row and head out.

One program takes a row, a head of keys with all query heads that share it, and a range of keys, which it passes once
with a running maximum m, l = Σ e^(s−m), t = Σ e^(s−m)(s−m), the parts of l of key 0 and of the recent keys, and, where
an output is wanted, Σ e^(s−m) v. Keys are found by strides, so that one kernel serves every layout.
"""

import triton
import triton.language as tl

# Finite, so that a range without a key has a maximum to merge; far below any score.
EMPTY = tl.constexpr(-1e30)


@triton.jit
def _places(
    table: tl.tensor,
    positions: tl.tensor,
    visible: tl.tensor,
    kv_head: tl.tensor,
    block_stride: tl.tensor,
    head_stride: tl.tensor,
    token_stride: tl.tensor,
    block_size: tl.constexpr,
) -> tl.tensor:
    """Where the vectors of some positions begin, counted in numbers from the first; those not visible are not read."""
    blocks = tl.load(table + positions // block_size, mask=visible, other=0).to(tl.int64)
    inside = (positions % block_size).to(tl.int64) * token_stride + kv_head.to(tl.int64) * head_stride
    return blocks * block_stride + inside


@triton.jit
def _score(
    q: tl.tensor,
    k: tl.tensor,
    slopes: tl.tensor,
    behind: tl.tensor,
    visible: tl.tensor,
    scale: tl.tensor,
    softcap: tl.tensor,
    operand: tl.constexpr,
    has_softcap: tl.constexpr,
    has_slopes: tl.constexpr,
) -> tl.tensor:
    """Scores [group, tile], −Inf where there is no key. behind: position less that of the query, float32 [tile]."""
    s = tl.dot(q, tl.trans(k.to(operand)), input_precision="ieee") * scale
    if has_softcap:
        # tanh(x) = 1 − 2 / (e^2x + 1); the language has none that the interpreter knows.
        s = softcap * (1.0 - 2.0 / (tl.exp(2.0 * (s / softcap)) + 1.0))
    if has_slopes:
        s += slopes[:, None] * behind[None, :]
    return tl.where(visible[None, :], s, float("-inf"))


@triton.jit
def _take_in(
    s: tl.tensor,
    positions: tl.tensor,
    start: tl.tensor,
    length: tl.tensor,
    m: tl.tensor,
    l: tl.tensor,  # noqa: E741 - the name it has in the formula
    t: tl.tensor,
    sink: tl.tensor,
    recent: tl.tensor,
    recent_keys: tl.constexpr,
    tile: tl.constexpr,
) -> tuple[tl.tensor, ...]:
    """The sums with a tile's scores [group, tile] added, what the old ones were multiplied with, and e^(s−m)."""
    # A maximum passes over NaN, which reaches the sums by e.
    top = tl.maximum(m, tl.max(s, 1))
    lower = m - top
    decay = tl.exp(lower)
    has_weight = s != float("-inf")
    x = tl.where(has_weight, s - top[:, None], 0.0)
    e = tl.where(has_weight, tl.exp(x), 0.0)
    # Where e is 0, x may be −Inf.
    t = (t + l * lower) * decay + tl.sum(tl.where(e == 0.0, 0.0, x * e), 1)
    l = l * decay + tl.sum(e, 1)  # noqa: E741 - the same
    sink = sink * decay
    if start == 0:
        sink += tl.sum(tl.where((positions == 0)[None, :], e, 0.0), 1)
    recent = recent * decay
    if start + tile > length - recent_keys:
        recent += tl.sum(tl.where((positions >= length - recent_keys)[None, :], e, 0.0), 1)
    return top, l, t, sink, recent, decay, e


# Longer than others: a kernel's parameters are its memory, and its loop is one thing. Not specialised on what batches
# differ in: compiling takes a second, on the model's thread.
@triton.jit(
    do_not_specialize=["table_stride", "part_stride", "splits", "range_keys", "window"],
    do_not_specialize_on_alignment=["parts"],
)
def add_up(
    q: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    table: tl.tensor,
    lengths: tl.tensor,
    key_scale: tl.tensor,
    slopes: tl.tensor,
    parts: tl.tensor,
    outputs: tl.tensor,
    row_stride: tl.tensor,
    query_stride: tl.tensor,
    block_stride: tl.tensor,
    head_stride: tl.tensor,
    token_stride: tl.tensor,
    number_stride: tl.tensor,
    table_stride: tl.tensor,
    part_stride: tl.tensor,
    splits: tl.tensor,
    range_keys: tl.tensor,
    window: tl.tensor,
    scale: tl.tensor,
    softcap: tl.tensor,
    heads: tl.constexpr,
    group: tl.constexpr,
    head_size: tl.constexpr,
    block_size: tl.constexpr,
    recent_keys: tl.constexpr,
    padded_group: tl.constexpr,
    padded_size: tl.constexpr,
    tile: tl.constexpr,
    operand: tl.constexpr,
    has_key_scale: tl.constexpr,
    has_softcap: tl.constexpr,
    has_slopes: tl.constexpr,
    with_output: tl.constexpr,
) -> None:
    """Grid: (rows · heads of keys, splits). parts: [5, rows, heads, splits]; outputs: [rows, heads, splits, d]."""
    kv_heads = heads // group
    row, kv_head = tl.program_id(0) // kv_heads, tl.program_id(0) % kv_heads
    split = tl.program_id(1)
    members, numbers = tl.arange(0, padded_group), tl.arange(0, padded_size)
    own_heads, is_member, is_number = kv_head * group + members, members < group, numbers < head_size
    of_queries = row.to(tl.int64) * row_stride + own_heads[:, None] * query_stride + numbers[None, :]
    rows_of_q = tl.load(q + of_queries, mask=is_member[:, None] & is_number[None, :], other=0.0).to(operand)
    if has_key_scale:
        scale = scale * tl.load(key_scale)
    own_slopes = tl.zeros([padded_group], tl.float32)
    if has_slopes:
        own_slopes = tl.load(slopes + own_heads, mask=is_member, other=0.0)
    length = tl.load(lengths + row).to(tl.int32)
    first = tl.maximum(length - window, 0)
    begin = first // tile * tile + split * range_keys
    end = tl.minimum(begin + range_keys, length)

    m = tl.full([padded_group], EMPTY, tl.float32)
    l = tl.zeros([padded_group], tl.float32)  # noqa: E741 - the same
    t = tl.zeros([padded_group], tl.float32)
    sink = tl.zeros([padded_group], tl.float32)
    recent = tl.zeros([padded_group], tl.float32)
    output = tl.zeros([padded_group, padded_size], tl.float32)
    for start in range(begin, end, tile):
        positions = start + tl.arange(0, tile)
        visible = (positions >= first) & (positions < length)
        places = _places(
            table + row.to(tl.int64) * table_stride,
            positions,
            visible,
            kv_head,
            block_stride,
            head_stride,
            token_stride,
            block_size,
        )
        of_vectors = places[:, None] + numbers[None, :] * number_stride
        is_read = visible[:, None] & is_number[None, :]
        k = tl.load(keys + of_vectors, mask=is_read, other=0.0)
        behind = (positions - (length - 1)).to(tl.float32)
        s = _score(
            rows_of_q, k, own_slopes, behind, visible, scale, softcap, operand, has_softcap, has_slopes
        )
        m, l, t, sink, recent, decay, e = _take_in(  # noqa: E741 - the same
            s, positions, start, length, m, l, t, sink, recent, recent_keys, tile
        )
        if with_output:
            v = tl.load(values + of_vectors, mask=is_read, other=0.0).to(tl.float32)
            output = output * decay[:, None] + tl.dot(e, v, input_precision="ieee")

    of_parts = (row * heads + own_heads) * splits + split
    tl.store(parts + of_parts, m, mask=is_member)
    tl.store(parts + part_stride + of_parts, l, mask=is_member)
    tl.store(parts + 2 * part_stride + of_parts, t, mask=is_member)
    tl.store(parts + 3 * part_stride + of_parts, sink, mask=is_member)
    tl.store(parts + 4 * part_stride + of_parts, recent, mask=is_member)
    if with_output:
        of_outputs = of_parts[:, None].to(tl.int64) * head_size + numbers[None, :]
        tl.store(outputs + of_outputs, output, mask=is_member[:, None] & is_number[None, :])

"""What ranges of keys added to each row and head in; entropy, masses and output of the whole out."""

import triton
import triton.language as tl

from introspan.capture.kernels.attention_parts import EMPTY


@triton.jit(do_not_specialize=["splits", "rows", "count", "window"])
def merge(
    parts: tl.tensor,
    outputs: tl.tensor,
    lengths: tl.tensor,
    sinks: tl.tensor,
    results: tl.tensor,
    merged: tl.tensor,
    splits: tl.tensor,
    rows: tl.tensor,
    count: tl.tensor,
    window: tl.tensor,
    sinks_stride: tl.tensor,
    heads: tl.constexpr,
    head_size: tl.constexpr,
    padded_size: tl.constexpr,
    lanes: tl.constexpr,
    has_sinks: tl.constexpr,
    with_output: tl.constexpr,
) -> None:
    """Grid: (count = layers · rows · heads,). parts: [5, count, splits]; results: [3, count]; merged: [count, d].

    sinks: logits [layers or 1, heads], which take a share of the softmax without a key.
    """
    place = tl.program_id(0)
    at = tl.arange(0, lanes)
    m = tl.full([lanes], EMPTY, tl.float32)
    l = tl.zeros([lanes], tl.float32)  # noqa: E741 - the name it has in the formula
    t = tl.zeros([lanes], tl.float32)
    sink = tl.zeros([lanes], tl.float32)
    recent = tl.zeros([lanes], tl.float32)
    own = parts + place.to(tl.int64) * splits
    part_stride = count.to(tl.int64) * splits
    # Each lane merges every so many ranges; the lanes are merged once, behind the loop.
    for start in range(0, splits, lanes):
        some, is_range = own + start + at, start + at < splits
        part_m = tl.load(some, mask=is_range, other=EMPTY)
        part_l = tl.load(some + part_stride, mask=is_range, other=0.0)
        part_t = tl.load(some + 2 * part_stride, mask=is_range, other=0.0)
        top = tl.maximum(m, part_m)
        lower, part_lower = m - top, part_m - top
        decay, part_decay = tl.exp(lower), tl.exp(part_lower)
        t = (t + l * lower) * decay + (part_t + part_l * part_lower) * part_decay
        l = l * decay + part_l * part_decay  # noqa: E741 - the same
        part_sink = tl.load(some + 3 * part_stride, mask=is_range, other=0.0)
        part_recent = tl.load(some + 4 * part_stride, mask=is_range, other=0.0)
        sink = sink * decay + part_sink * part_decay
        recent = recent * decay + part_recent * part_decay
        m = top
    top = tl.max(m, 0)
    row, head = place // heads % rows, place % heads
    if has_sinks:
        logit = tl.load(sinks + place // (rows * heads) * sinks_stride + head)
        top = tl.maximum(top, logit)
    lower = m - top
    decay = tl.exp(lower)
    whole_t = tl.sum((t + l * lower) * decay, 0)
    whole_l = tl.sum(l * decay, 0)
    if has_sinks:
        whole_t += (logit - top) * tl.exp(logit - top)
        whole_l += tl.exp(logit - top)
    entropy = tl.log(whole_l) - whole_t / whole_l
    # Not a maximum: that would make 0 of NaN.
    tl.store(results + place, tl.where(entropy < 0.0, 0.0, entropy))
    sink_mass = tl.sum(sink * decay, 0) / whole_l
    has_left = tl.load(lengths + row) > window
    tl.store(results + count + place, tl.where(has_left, float("nan"), sink_mass))
    tl.store(results + 2 * count + place, tl.sum(recent * decay, 0) / whole_l)
    if with_output:
        numbers = tl.arange(0, padded_size)
        total = tl.zeros([padded_size], tl.float32)
        for split in range(splits):
            weight = tl.exp(tl.load(own + split) - top)
            of_range = outputs + (place.to(tl.int64) * splits + split) * head_size
            total += weight * tl.load(of_range + numbers, mask=numbers < head_size, other=0.0)
        tl.store(merged + place * head_size + numbers, total / whole_l, mask=numbers < head_size)

"""Rows of raw logits on a GPU and their delivered tokens in; entropy, margin, log-probability, non-finite values out.

One pass over a row, however wide. `Vocabulary` of `capture/output/vocabulary.py` is what this is held against. Nothing
here waits.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from introspan.capture.kernels.attention_parts import EMPTY

_LANES = 1024


@dataclass(frozen=True, slots=True, eq=False)
class VocabularyStatistics:
    """Of each row, float32 [rows]; a NaN or +Inf among its logits gives NaN in all but nonfinite."""

    entropy: Tensor
    margin: Tensor
    logprob: Tensor
    nonfinite: Tensor


@triton.jit
def _pass_over(
    logits: tl.tensor, row: tl.tensor, stride: tl.tensor, size: tl.constexpr, lanes: tl.constexpr
) -> tuple[tl.tensor, ...]:
    """Of each lane, which sees every so many numbers: largest, second, l, t, and how many are NaN or +Inf."""
    at = tl.arange(0, lanes)
    m = tl.full([lanes], EMPTY, tl.float32)
    second = tl.full([lanes], EMPTY, tl.float32)
    l = tl.zeros([lanes], tl.float32)  # noqa: E741 - the name it has in the formula
    t = tl.zeros([lanes], tl.float32)
    wrong = tl.zeros([lanes], tl.float32)
    for start in range(0, size, lanes):
        z = tl.load(logits + row * stride + start + at, mask=start + at < size, other=float("-inf"))
        z = z.to(tl.float32)
        is_right = z < float("inf")  # which a NaN is not
        wrong += tl.where(is_right, 0.0, 1.0)
        z = tl.where(is_right, z, float("-inf"))
        has_weight = z != float("-inf")
        second = tl.maximum(second, tl.minimum(m, z))
        top = tl.maximum(m, z)
        lower = m - top
        decay = tl.exp(lower)
        x = tl.where(has_weight, z - top, 0.0)
        e = tl.where(has_weight, tl.exp(x), 0.0)
        # Where e is 0, x may be −Inf.
        t = (t + l * lower) * decay + tl.where(e == 0.0, 0.0, x * e)
        l = l * decay + e  # noqa: E741 - the same
        m = top
    return m, second, l, t, wrong


@triton.jit(do_not_specialize=["rows"])
def _reduce(
    logits: tl.tensor,
    tokens: tl.tensor,
    results: tl.tensor,
    rows: tl.tensor,
    stride: tl.tensor,
    size: tl.constexpr,
    lanes: tl.constexpr,
) -> None:
    """Grid: (rows,). results: [4, rows]."""
    row = tl.program_id(0).to(tl.int64)
    m, second, l, t, wrong = _pass_over(logits, row, stride, size, lanes)  # noqa: E741 - the same
    top = tl.max(m, 0)
    # The runner-up of all is that of the leader's lane, or the leader of another.
    rest = tl.where(tl.arange(0, lanes) == tl.argmax(m, 0), second, m)
    runner_up = tl.max(rest, 0)
    lower = m - top
    decay = tl.exp(lower)
    whole_l = tl.sum(l * decay, 0)
    whole_t = tl.sum((t + l * lower) * decay, 0)
    count = tl.sum(wrong, 0)
    # Where none has a probability none can be drawn: all of them are wrong.
    count = tl.where((count == 0.0) & (whole_l == 0.0), size * 1.0, count)
    is_whole = count == 0.0
    entropy = tl.log(whole_l) - whole_t / whole_l
    entropy = tl.where(entropy < 0.0, 0.0, entropy)
    margin = (1.0 - tl.exp(runner_up - top)) / whole_l
    token = tl.load(tokens + row).to(tl.int64)
    of_token = tl.load(logits + row * stride + token, mask=(token >= 0) & (token < size), other=float("nan"))
    logprob = of_token.to(tl.float32) - top - tl.log(whole_l)
    tl.store(results + row, tl.where(is_whole, entropy, float("nan")))
    tl.store(results + rows + row, tl.where(is_whole, margin, float("nan")))
    tl.store(results + 2 * rows + row, tl.where(is_whole, logprob, float("nan")))
    tl.store(results + 3 * rows + row, count)


def vocabulary_numbers(logits: Tensor, tokens: Tensor) -> Tensor:
    """The fields of `vocabulary_statistics`, in their order, as one tensor [4, rows]."""
    rows, size = logits.shape
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    results = logits.new_empty(4, rows, dtype=torch.float32)
    if rows:
        _reduce[(rows,)](
            logits, tokens, results, rows, logits.stride(0), size=size, lanes=_LANES, num_warps=8
        )
    return results


def vocabulary_statistics(logits: Tensor, tokens: Tensor) -> VocabularyStatistics:
    """What raw logits [rows, V] say of the delivered tokens, int [rows]; a token outside of V has no probability."""
    return VocabularyStatistics(*vocabulary_numbers(logits, tokens).unbind())

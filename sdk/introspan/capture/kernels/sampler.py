"""Rows of raw logits on a GPU, what was asked of the sampler and the tokens it drew in; U and greedy mismatches out.

`capture/output/sampler.py` says what they are, and is what this is held against; tokens are tied here where their
logits are. Weights are computed again in every pass over a row and kept nowhere: nothing is as wide as a vocabulary but
the logits. Lanes add up in float32, and what they have in float64. Nothing here waits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from introspan.capture.kernels.sampler_cut import cut, mass_to, places
from introspan.capture.output.sampler import GREEDY_TEMPERATURE

_LANES = 8192

# Of the exponential as a power of two: those are what a GPU computes.
_LOG2_E = tl.constexpr(1.4426950408889634)

ASKED = 5
"""Numbers of each row: temperature, NaN where nothing is asked; top_k; top_p; min_p; the uniform number v."""


@triton.jit
def _look_at(row: tl.tensor, size: tl.constexpr, lanes: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """The largest logit of a row but NaN, and how many of those there are."""
    at = tl.arange(0, lanes)
    top = tl.full([lanes], float("-inf"), tl.float32)
    nans = tl.zeros([lanes], tl.int32)
    for start in range(0, size, lanes):
        z = tl.load(row + start + at, mask=start + at < size, other=float("-inf")).to(tl.float32)
        is_nan = z != z  # noqa: PLR0124 - the language has no other question for it
        nans += is_nan.to(tl.int32)
        top = tl.maximum(top, tl.where(is_nan, float("-inf"), z))
    return tl.max(top, 0), tl.sum(nans, 0)


@triton.jit
def _share(
    row: tl.tensor,
    own: tl.tensor,
    last: tl.tensor,
    edge: tl.tensor,
    may_go: tl.tensor,
    v: tl.tensor,
    top: tl.tensor,
    scale: tl.tensor,
    size: tl.constexpr,
    lanes: tl.constexpr,
) -> tl.tensor:
    """U where tokens behind last are none, of the others those behind edge go, and of those at it as many as may."""
    above = tl.zeros([lanes], tl.float32)
    gone = tl.zeros([lanes], tl.float32)
    total = tl.zeros([lanes], tl.float32)
    tied = tl.zeros([lanes], tl.int32)
    at_edge = tl.zeros([lanes], tl.int32)
    for start in range(0, size, lanes):
        x = places(row, start, top, size, lanes)
        mass = tl.where(x <= last, tl.exp2(x * scale), 0.0)
        total += mass
        gone += tl.where(x > edge, mass, 0.0)
        above += tl.where(x < own, mass, 0.0)
        tied += (x == own).to(tl.int32)
        at_edge += (x == edge).to(tl.int32)
    lost = tl.sum(gone.to(tl.float64), 0)
    of_edge = tl.exp2(edge * scale).to(tl.float64)
    more = 0.0 * lost
    if of_edge > 0.0:
        more = tl.floor((may_go - lost) / of_edge)
        more = tl.maximum(tl.minimum(more, tl.sum(at_edge, 0).to(tl.float64) - 1.0), 0.0)
    others = tl.sum(tied, 0).to(tl.float64) - tl.where(own == edge, more, 0.0)
    before = tl.sum(above.to(tl.float64), 0) + v * others * tl.exp2(own * scale).to(tl.float64)
    u = before / (tl.sum(total.to(tl.float64), 0) - lost - more * of_edge)
    return tl.where(own > edge, 1.0, u).to(tl.float32)


@triton.jit
def _pit(
    row: tl.tensor,
    own: tl.tensor,
    top: tl.tensor,
    asked: tl.tensor,
    rows: tl.tensor,
    size: tl.constexpr,
    lanes: tl.constexpr,
) -> tl.tensor:
    """U of a token at the place own, of the row's filters in the order in which vLLM applies them."""
    temperature = tl.load(asked).to(tl.float32)
    top_k = tl.load(asked + rows)
    top_p = tl.load(asked + 2 * rows)
    min_p = tl.load(asked + 3 * rows).to(tl.float32)
    v = tl.load(asked + 4 * rows)
    scale = -_LOG2_E / temperature
    everything = float("inf") + 0.0 * scale
    last = everything
    if min_p > 0.0:
        last = tl.maximum(-temperature * tl.log(min_p), 0.0)
    if (top_k > 0.0) & (top_k < size):
        last = tl.minimum(last, cut(row, everything, top_k, top, scale, size, lanes, by_mass=False))
    edge = last
    may_go = 0.0 * top_p
    if top_p < 1.0:
        may_go = tl.maximum(1.0 - top_p, 0.0) * mass_to(row, last, top, scale, size, lanes)
        edge = cut(row, last, may_go, top, scale, size, lanes, by_mass=True)
    return _share(row, own, last, edge, may_go, v, top, scale, size, lanes)


@triton.jit(do_not_specialize=["rows"])
def _draws(
    logits: tl.tensor,
    tokens: tl.tensor,
    asked: tl.tensor,
    results: tl.tensor,
    rows: tl.tensor,
    stride: tl.tensor,
    size: tl.constexpr,
    lanes: tl.constexpr,
    greedy: tl.constexpr,
) -> None:
    """Grid: (rows,). asked: [ASKED, rows]; results: [2, rows]."""
    place = tl.program_id(0).to(tl.int64)
    temperature = tl.load(asked + place)
    pit = float("nan")
    mismatch = float("nan")
    if temperature == temperature:  # noqa: PLR0124 - as above
        row = logits + place * stride
        top, nans = _look_at(row, size, lanes)
        token = tl.load(tokens + place).to(tl.int64)
        is_known = (token >= 0) & (token < size)
        drawn = tl.load(row + token, mask=is_known, other=float("nan")).to(tl.float32)
        if temperature < greedy:
            mismatch = ((drawn < top) & (nans == 0)).to(tl.float32)
        elif is_known & (nans == 0) & (top < float("inf")) & (top > float("-inf")):
            pit = _pit(row, top - drawn, top, asked + place, rows, size, lanes)
    tl.store(results + place, pit)
    tl.store(results + rows + place, mismatch)


def draws(logits: Tensor, tokens: Tensor, asked: Tensor) -> Tensor:
    """sampler.pit and sampler.greedy_mismatch, float32 [2, rows], NaN where a row has no such thing.

    logits: raw, [rows, V]; tokens: int [rows]; asked: float64 [ASKED, rows]; all on one device. A token outside of V
    has no U.
    """
    rows, size = logits.shape
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    results = logits.new_empty(2, rows, dtype=torch.float32)
    if rows:
        _draws[(rows,)](
            logits, tokens, asked.contiguous(), results, rows, logits.stride(0),
            size=size, lanes=min(_LANES, triton.next_power_of_2(size)), greedy=GREEDY_TEMPERATURE, num_warps=16,
        )  # fmt: skip
    return results

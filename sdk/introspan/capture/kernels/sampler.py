"""Rows of raw logits on a GPU, what was asked of the sampler and the tokens it drew in; U and greedy mismatches out.

`capture/output/sampler.py` says what they are, and is what this is held against. Weights are computed again in every
pass over a row and kept nowhere: nothing is as wide as a vocabulary but the logits. Nothing here waits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from introspan.capture.kernels.sampler_cut import cut, mass_from, weights
from introspan.capture.output.sampler import GREEDY_TEMPERATURE

_LANES = 4096

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
def _own(
    row: tl.tensor,
    token: tl.tensor,
    top: tl.tensor,
    temperature: tl.tensor,
    size: tl.constexpr,
    lanes: tl.constexpr,
) -> tl.tensor:
    """The weight of the token, −1 where it is outside of the vocabulary.

    By the operations that all others' weights come from, since it is held against theirs for equality.
    """
    at = tl.arange(0, lanes)
    own = tl.full([lanes], -1.0, tl.float32)
    for start in range(0, size, lanes):
        w = weights(row, start, top, temperature, size, lanes)
        own = tl.where((start + at == token) & (start + at < size), w, own)
    return tl.max(own, 0)


@triton.jit
def _share(
    row: tl.tensor,
    own: tl.tensor,
    least: tl.tensor,
    edge: tl.tensor,
    may_go: tl.tensor,
    v: tl.tensor,
    top: tl.tensor,
    temperature: tl.tensor,
    size: tl.constexpr,
    lanes: tl.constexpr,
) -> tl.tensor:
    """U where weights below least are none, of the others those below edge go, and of those at it as many as may."""
    above = tl.zeros([lanes], tl.float64)
    gone = tl.zeros([lanes], tl.float64)
    total = tl.zeros([lanes], tl.float64)
    tied = tl.zeros([lanes], tl.int32)
    at_edge = tl.zeros([lanes], tl.int32)
    for start in range(0, size, lanes):
        w = weights(row, start, top, temperature, size, lanes)
        mass = tl.where(w >= least, w, 0.0).to(tl.float64)
        total += mass
        gone += tl.where(w < edge, mass, 0.0)
        above += tl.where(w > own, mass, 0.0)
        tied += (w == own).to(tl.int32)
        at_edge += (w == edge).to(tl.int32)
    lost = tl.sum(gone, 0)
    wide = edge.to(tl.float64)
    more = 0.0 * lost
    if edge > 0.0:
        more = tl.floor((may_go - lost) / wide)
        more = tl.maximum(tl.minimum(more, tl.sum(at_edge, 0).to(tl.float64) - 1.0), 0.0)
    others = tl.sum(tied, 0).to(tl.float64) - tl.where(own == edge, more, 0.0)
    u = (tl.sum(above, 0) + v * others * own.to(tl.float64)) / (tl.sum(total, 0) - lost - more * wide)
    return tl.where(own < edge, 1.0, u).to(tl.float32)


@triton.jit
def _pit(
    row: tl.tensor,
    token: tl.tensor,
    top: tl.tensor,
    asked: tl.tensor,
    rows: tl.tensor,
    size: tl.constexpr,
    lanes: tl.constexpr,
) -> tl.tensor:
    temperature = tl.load(asked).to(tl.float32)
    top_k = tl.load(asked + rows)
    top_p = tl.load(asked + 2 * rows)
    least = tl.maximum(tl.load(asked + 3 * rows).to(tl.float32), 0.0)
    v = tl.load(asked + 4 * rows)
    own = _own(row, token, top, temperature, size, lanes)
    if (top_k > 0.0) & (top_k < size):
        least = tl.maximum(least, cut(row, 0.0 * least, top_k, top, temperature, size, lanes, by_mass=False))
    edge = least
    may_go = 0.0 * top_p
    if top_p < 1.0:
        may_go = tl.maximum(1.0 - top_p, 0.0) * mass_from(row, least, top, temperature, size, lanes)
        edge = cut(row, least, may_go, top, temperature, size, lanes, by_mass=True)
    u = _share(row, own, least, edge, may_go, v, top, temperature, size, lanes)
    return tl.where(own < 0.0, float("nan"), u)


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
        token = tl.load(tokens + place).to(tl.int64)
        top, nans = _look_at(row, size, lanes)
        if temperature < greedy:
            own = tl.load(row + token, mask=(token >= 0) & (token < size), other=float("nan")).to(tl.float32)
            mismatch = ((own < top) & (nans == 0)).to(tl.float32)
        elif (nans == 0) & (top < float("inf")) & (top > float("-inf")):
            pit = _pit(row, token, top, asked + place, rows, size, lanes)
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
            size=size, lanes=min(_LANES, triton.next_power_of_2(size)), greedy=GREEDY_TEMPERATURE, num_warps=8,
        )  # fmt: skip
    return results

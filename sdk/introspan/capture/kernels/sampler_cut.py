"""A row of raw logits and how much of it may go in; where a filter of the sampler cuts it off out.

A token's place is x = top − logit ≥ 0, and the bits of x, as a whole number, are in the order of the places. So a cut
is found by halving a range of numbers, one pass over the row each time, and nothing is sorted. Both ends of the range
move on to places where there are tokens: of logits of 16 bits few differ.
"""

import triton
import triton.language as tl


@triton.jit
def places(
    row: tl.tensor, start: tl.tensor, top: tl.tensor, size: tl.constexpr, lanes: tl.constexpr
) -> tl.tensor:
    """Where so many tokens are; +Inf beyond the last."""
    at = start + tl.arange(0, lanes)
    return top - tl.load(row + at, mask=at < size, other=float("-inf")).to(tl.float32)


@triton.jit
def mass_to(
    row: tl.tensor,
    last: tl.tensor,
    top: tl.tensor,
    scale: tl.tensor,
    size: tl.constexpr,
    lanes: tl.constexpr,
) -> tl.tensor:
    """Σ 2^(x · scale) over x ≤ last, float64."""
    mass = tl.zeros([lanes], tl.float32)
    for start in range(0, size, lanes):
        x = places(row, start, top, size, lanes)
        mass += tl.where(x <= last, tl.exp2(x * scale), 0.0)
    return tl.sum(mass.to(tl.float64), 0)


@triton.jit
def cut(
    row: tl.tensor,
    last: tl.tensor,
    target: tl.tensor,
    top: tl.tensor,
    scale: tl.tensor,
    size: tl.constexpr,
    lanes: tl.constexpr,
    by_mass: tl.constexpr,
) -> tl.tensor:
    """The place of the last token that stays.

    by_mass: where of those up to last tokens go, least likely first, while what has gone is ≤ target; never the
    likeliest. Else: where target tokens stay.
    """
    # Up to low too few stay, up to high enough.
    low = tl.full([], -1, tl.int32)
    high = last.to(tl.int32, bitcast=True)
    while high - low > 1:
        middle = low + (high - low) // 2
        amount = tl.zeros([lanes], tl.float32)
        within = tl.zeros([lanes], tl.int32) + low
        beyond = tl.zeros([lanes], tl.int32) + high
        for start in range(0, size, lanes):
            x = places(row, start, top, size, lanes)
            bits = x.to(tl.int32, bitcast=True)
            stays = bits <= middle
            if by_mass:
                amount += tl.where(stays | (x > last), 0.0, tl.exp2(x * scale))
            else:
                amount += stays.to(tl.float32)
            within = tl.maximum(within, tl.where(stays, bits, low))
            beyond = tl.minimum(beyond, tl.where(stays, high, bits))
        whole = tl.sum(amount.to(tl.float64), 0)
        is_enough = whole <= target if by_mass else whole >= target
        # At least half of the range is left behind, wherever the tokens are.
        next_high = tl.where(is_enough, tl.maximum(tl.max(within, 0), low + 1), high)
        low = tl.where(is_enough, low, tl.minimum(tl.min(beyond, 0) - 1, high - 1))
        high = next_high
    return high.to(tl.float32, bitcast=True)

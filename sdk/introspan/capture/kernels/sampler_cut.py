"""A row of raw logits and how much of it may go in; the weight at which a filter of the sampler cuts it off out.

The bits of a weight, as a whole number, are in the order of the weights. So a cut is found by halving a range of
numbers, one pass over the row each time, and nothing is sorted. Both ends of the range move on to weights that there
are: logits of 16 bits have few that differ.
"""

import triton
import triton.language as tl

# Of 1, the weight of the likeliest token.
_LARGEST_BITS = tl.constexpr(0x3F800000)


@triton.jit
def weights(
    row: tl.tensor,
    start: tl.tensor,
    top: tl.tensor,
    temperature: tl.tensor,
    size: tl.constexpr,
    lanes: tl.constexpr,
) -> tl.tensor:
    """exp((logit − top) / temperature) of so many tokens; 0 beyond the last."""
    at = start + tl.arange(0, lanes)
    z = tl.load(row + at, mask=at < size, other=float("-inf")).to(tl.float32)
    return tl.exp((z - top) / temperature)


@triton.jit
def mass_from(
    row: tl.tensor,
    least: tl.tensor,
    top: tl.tensor,
    temperature: tl.tensor,
    size: tl.constexpr,
    lanes: tl.constexpr,
) -> tl.tensor:
    """Σ w over w ≥ least, float64."""
    mass = tl.zeros([lanes], tl.float64)
    for start in range(0, size, lanes):
        w = weights(row, start, top, temperature, size, lanes)
        mass += tl.where(w >= least, w, 0.0).to(tl.float64)
    return tl.sum(mass, 0)


@triton.jit
def cut(
    row: tl.tensor,
    least: tl.tensor,
    target: tl.tensor,
    top: tl.tensor,
    temperature: tl.tensor,
    size: tl.constexpr,
    lanes: tl.constexpr,
    by_mass: tl.constexpr,
) -> tl.tensor:
    """The weight of the last token that stays; weights below least are none.

    by_mass: where tokens go, least likely first, while what has gone is ≤ target; never the likeliest. Else: where
    target tokens stay.
    """
    # What goes up to low is not enough, up to high it is.
    low = least.to(tl.int32, bitcast=True) - 1
    high = tl.full([], _LARGEST_BITS, tl.int32)
    while high - low > 1:
        middle = low + (high - low) // 2
        amount = tl.zeros([lanes], tl.float64)
        below = tl.zeros([lanes], tl.int32) + low
        above = tl.zeros([lanes], tl.int32) + high
        for start in range(0, size, lanes):
            w = weights(row, start, top, temperature, size, lanes)
            bits = w.to(tl.int32, bitcast=True)
            goes = bits <= middle
            if by_mass:
                amount += tl.where(goes & (w >= least), w, 0.0).to(tl.float64)
            else:
                amount += tl.where(goes, 0.0, 1.0).to(tl.float64)
            below = tl.maximum(below, tl.where(goes, bits, low))
            above = tl.minimum(above, tl.where(goes, high, bits))
        whole = tl.sum(amount, 0)
        is_enough = whole > target if by_mass else whole < target
        # At least half of the range is left behind, whatever the weights are.
        next_high = tl.where(is_enough, tl.maximum(tl.max(below, 0), low + 1), high)
        low = tl.where(is_enough, low, tl.minimum(tl.min(above, 0) - 1, high - 1))
        high = next_high
    return high.to(tl.float32, bitcast=True)

"""An attention output as the backend gave it and as it is recomputed in; how far they are apart out."""

import torch
from torch import Tensor

from introspan.observation import Disabled

_TOLERANCE = 1e-3
"""Of an output's length, in float32: scores of a hundred have errors of 1e-4. Fewer bits have eight roundings."""

_SHORTEST = 1e-3
"""Of a value vector's length: an output shorter than that is a difference of longer ones."""


_ROUGH = 0.25
"""Where weights are rounded to fp8, by up to a sixteenth each; an output of other keys is off by one and more."""


def tolerance_of(dtype: torch.dtype, *, has_rough_weights: bool = False) -> float:
    """How far outputs computed with numbers of this type may be off, of their length.

    has_rough_weights: whether the backend multiplies values with weights of eight bits.
    """
    return _ROUGH if has_rough_weights else max(_TOLERANCE, 8 * torch.finfo(dtype).eps)


def off_by(expected: Tensor, actual: Tensor, longest_value: Tensor) -> Tensor:
    """How far the row and head that is furthest off is, relative to its length; a scalar where the outputs are.

    actual: float32 [rows, heads, d]; longest_value: the length of the longest value vector that outputs are made of,
    as far as it is known. What is finite neither here nor there says nothing.
    """
    expected = expected.view_as(actual)
    nowhere = ~(torch.isfinite(expected) | torch.isfinite(actual)).all(dim=-1)
    length = torch.maximum(actual.norm(dim=-1), _SHORTEST * longest_value)
    off = (expected - actual).norm(dim=-1) / length
    furthest: Tensor = off.masked_fill(nowhere, 0.0).max()
    return furthest


def longest(values: Tensor) -> Tensor:
    """The length of the longest of some vectors [..., d] whose length is finite; 0 where there is none."""
    length: Tensor = values.norm(dim=-1).nan_to_num(0.0, 0.0, 0.0).max()
    return length


def failure(layer: int, off: float) -> Disabled:
    """What is said where an output is off by more than may be."""
    detail = f"layer {layer}: recomputed attention output is off by {off:.3g} of its length"
    return Disabled("attention", "self_check_failed", detail)

"""States of the residual stream at every layer in, what each layer added, and the first that added otherwise, out.

A deviation grows on its way through the layers, and in bfloat16 so does chance: where the state first deviates is
often late. What a layer adds, compared with what it adds otherwise, has the rounding of that layer in it and little
of that before. All questions and rows together say which layer is the first.
"""

import numpy as np
from numpy.typing import NDArray

STEP_ROUNDING = 0.25
"""A step has the rounding of one layer, not that of all before: of what rounding may do to a state, so much."""

NAMED_RATIO = 2.0
"""A layer is named where its steps are further off than those of any healthy round, times this."""


def steps_of(states: NDArray[np.float64], state_mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """What was added to the stream, [..., L + 1, 32], relative to the size that the stream usually has then.

    states: [..., L + 1, 33], P ĥ and √32 · ln rms; state_mean: their mean [L + 1, 33]. Step 0 is the embedding, step
    ℓ + 1 what layer ℓ added.
    """
    scale = np.sqrt(states.shape[-1] - 1)
    usual = state_mean[..., -1:] / scale
    log_rms = states[..., -1:] / scale
    after: NDArray[np.float64] = np.exp(log_rms - usual) * states[..., :-1]
    before = np.exp(log_rms[..., :-1, :] - usual[..., 1:, :]) * states[..., :-1, :-1]
    after[..., 1:, :] -= before
    return after


def pooled(ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root mean square [..., L + 1] of distances in floors over all rows [..., rows, L + 1] that were measured."""
    found = rms(np.where(ratio > 0, ratio, np.nan), (-2,))
    return np.where(np.isinf(ratio).any(axis=-2), np.inf, found)


def first_layer(score: NDArray[np.float64], limit: NDArray[np.float64]) -> int | None:
    """Index of the first step beyond the limit, None where there is none."""
    beyond = np.flatnonzero(score > NAMED_RATIO * limit)
    return int(beyond[0]) if beyond.size else None


def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the first axis of what is not NaN; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def rms(values: NDArray[np.float64], axis: tuple[int, ...]) -> NDArray[np.float64]:
    """Root mean square over axes of what is not NaN; 0 where nothing is."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0) ** 2
    mean_square: NDArray[np.float64] = total.sum(axis) / np.maximum(known.sum(axis), 1)
    return np.sqrt(mean_square)


def length(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean length over the last axis; 0 where nothing was measured."""
    found: NDArray[np.float64] = rms(values, (values.ndim - 1,)) * np.sqrt(values.shape[-1])
    return found

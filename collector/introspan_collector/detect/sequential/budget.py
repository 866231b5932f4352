"""Streams in, the share of the budget of false alarms that each one has out."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.sequential.evidence import SHARES, Stream


def shared_out(streams: Sequence[Stream], bound: NDArray[np.float64]) -> NDArray[np.float64]:
    """π of every stream, float64 [S], summing to 1: shared out over what exists.

    Every (model, adapter) has the same budget; inside it each detector that has streams has its part of SHARES,
    and its streams share alike. A stream with bound 0 or ≥ 1 takes nothing: the first needs no clock, the second
    can never be evidence. Raises ValueError for a detector that has no share.
    """
    if unknown := {stream.detector for stream in streams} - SHARES.keys():
        raise ValueError(f"detector must be one of {', '.join(SHARES)}, got {', '.join(sorted(unknown))}")
    live = (bound > 0) & (bound < 1)
    if not live.any():
        return np.zeros(len(streams))
    group = _numbers([(stream.model, stream.adapter) for stream in streams])
    pool = _numbers([(stream.model, stream.adapter, stream.detector) for stream in streams])
    pooled = np.bincount(pool, weights=live)
    part = np.array([SHARES[stream.detector] for stream in streams]) * live / np.maximum(pooled[pool], 1)
    grouped = np.bincount(group, weights=part)
    share: NDArray[np.float64] = part / np.where(grouped > 0, grouped, 1)[group]
    return share / np.count_nonzero(grouped)


def _numbers(keys: Sequence[tuple[str, ...]]) -> NDArray[np.intp]:
    known: dict[tuple[str, ...], int] = {}
    return np.array([known.setdefault(key, len(known)) for key in keys], np.intp)

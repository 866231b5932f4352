"""Values under one list of names in, the same values under another list out; NaN where there is none."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.sample import Feature, Sample
from introspan_wire.signals import PROJECTION_COMPONENTS


def aligned(
    values: NDArray[np.float32], have: tuple[Feature, ...], want: tuple[Feature, ...]
) -> NDArray[np.float32]:
    """Columns of values, float32 [n, len(have)], in the order of `want`: float32 [n, len(want)]."""
    return values if have == want else _taken(values, _places(have, want))


def aligned_projection(sample: Sample, want: tuple[int, ...]) -> NDArray[np.float32]:
    """Projections at the layers wanted, float32 [n, len(want) · 32]."""
    if sample.projection_layers == want:
        return sample.projection
    places = _places(sample.projection_layers, want)
    components = places[:, None] * PROJECTION_COMPONENTS + np.arange(PROJECTION_COMPONENTS)
    return _taken(sample.projection, np.where(places[:, None] < 0, -1, components).ravel())


@lru_cache(maxsize=256)
def _places(have: tuple[object, ...], want: tuple[object, ...]) -> NDArray[np.intp]:
    place = {name: i for i, name in enumerate(have)}
    return np.array([place.get(name, -1) for name in want], np.intp)


def _taken(values: NDArray[np.float32], places: NDArray[np.intp]) -> NDArray[np.float32]:
    nothing: NDArray[np.float32] = np.full((len(values), 1), np.nan, np.float32)
    return np.concatenate([values, nothing], axis=1)[:, places]

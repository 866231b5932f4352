"""A reference in, mean and deviation of healthy values by kind of row, signal and layer out: for people to compare."""

from collections import OrderedDict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.reference.reference import Population, Reference
from introspan_collector.detect.sample import Feature
from introspan_wire.signals import Kind

_REMEMBERED = 128


class Typical(NamedTuple):
    """What one feature of one kind of row is in so many healthy requests."""

    kind: Kind
    feature: Feature
    mean: float
    stddev: float
    requests: int


class Typicals:
    """Remembers what was computed, by content hash: a page that somebody looks at asks every few seconds."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[Typical, ...]] = OrderedDict()

    def of(self, content_hash: str, reference: Reference) -> tuple[Typical, ...]:
        """Every feature of the reference that was measured in at least two requests."""
        found = self._known.get(content_hash)
        if found is None:
            found = self._known[content_hash] = tuple(
                one
                for kind, population in reference.populations.items()
                for one in _typical(kind, population)
            )
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return found


def _typical(kind: Kind, population: Population) -> list[Typical]:
    values = population.features.astype(np.float64)
    known = np.isfinite(values)
    count = known.sum(axis=0)
    mean = _over(np.where(known, values, 0.0), count)
    stddev = np.sqrt(_over(np.where(known, values - mean, 0.0) ** 2, count))
    columns = (population.names, mean.tolist(), stddev.tolist(), count.tolist())
    return [Typical(kind, *row) for row in zip(*columns, strict=True) if row[-1] >= 2]


def _over(values: NDArray[np.float64], count: NDArray[np.int64]) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = values.sum(axis=0) / np.maximum(count, 1)
    return mean

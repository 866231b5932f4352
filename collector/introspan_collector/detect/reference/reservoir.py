"""Healthy requests in, a bounded uniform sample with one request of each cluster and window of time out."""

import zlib
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.reference.alignment import aligned, aligned_projection
from introspan_collector.detect.sample import Feature, Sample, uniform
from introspan_wire.signals import PROJECTION_COMPONENTS, Kind

WINDOW_SECONDS = 10
"""A cluster's requests of so many seconds count as one: the tick in which a detector averages them."""

_PENDING_ROWS = 2048
_PROJECTION_LAYERS = 2
_PURPOSE_UNIT = 0x5EED
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """n requests, sorted by unit: a cluster in one window of time, as a uniform number; row is one for the request.

    features: float32 [n, F]; projection: float32 [n, P] of this kind's row; prompt: float32 [n, P], projection of the
    same request's prompt; NaN = not measured.
    """

    unit: NDArray[np.float64]
    row: NDArray[np.float64]
    cluster: NDArray[np.uint64]
    length: NDArray[np.int64]
    time_unix_nano: NDArray[np.uint64]
    features: NDArray[np.float32]
    projection: NDArray[np.float32]
    prompt: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.unit)

    def take(self, chosen: NDArray[np.intp] | NDArray[np.bool_] | slice) -> "Rows":
        """Some of the requests, in the order given."""
        return Rows(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @property
    def fit(self) -> NDArray[np.bool_]:
        """Which half each request is in: True to fit with, False to calibrate with. By hash, whole units."""
        # Not the last bit: unit lies between two multiples of 2⁻⁵³, where half of all numbers round to even.
        return np.asarray((self.unit * 2.0**48).astype(np.uint64) % np.uint64(2) == 0)


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """Rows of one kind, and what their columns are."""

    kind: Kind
    names: tuple[Feature, ...]
    layers: tuple[int, ...]
    rows: Rows

    @property
    def prompt(self) -> NDArray[np.float32]:
        """Projections of the requests' prompt rows, float32 [n, P]."""
        return self.rows.projection if self.kind is Kind.PROMPT else self.rows.prompt


class Reservoir:
    """Units with the smallest hashes, and of each the request with the smallest: whatever the order of arrival.

    So every unit has the same chance to be in it, a request that is seen again changes nothing, and the
    number of units seen follows from the largest hash kept. (k minimum values, Bar-Yossef et al. 2002)
    """

    def __init__(self, kind: Kind, capacity: int, seed: int = 0) -> None:
        self._kind = kind
        self._capacity = capacity
        self._seed = seed
        self._pending: list[Rows] = []
        self.names: tuple[Feature, ...] = ()
        self.layers: tuple[int, ...] = ()
        self._rows = _no_rows(0, 0, 0)

    def add(self, sample: Sample, prompt: NDArray[np.float32]) -> None:
        """Takes requests of one kind, and the projections of their prompts, float32 [n, any]."""
        added = tuple(name for name in sample.names if name not in set(self.names))
        layers = tuple(layer for layer in _two(sample.projection_layers) if layer not in set(self.layers))
        layers = layers[: _PROJECTION_LAYERS - len(self.layers)]
        if added or layers or prompt.shape[1] > self._rows.prompt.shape[1]:
            self._merge()
            self.names += added
            self.layers += layers
            self._rows = _widened(self._rows, len(self.names), len(self.layers), prompt.shape[1])
        rows = self._keyed(sample, prompt)
        if len(self._rows) >= self._capacity:
            rows = rows.take(rows.unit <= self._rows.unit[-1])
        self._pending.append(rows)
        if sum(map(len, self._pending)) >= _PENDING_ROWS:
            self._merge()

    def gathered(self) -> Gathered:
        """What is kept, sorted by unit."""
        self._merge()
        return Gathered(self._kind, self.names, self.layers, self._rows)

    def restore(self, gathered: Gathered) -> None:
        """Puts rows that were gathered in place of these."""
        self.names, self.layers, self._rows, self._pending = (
            gathered.names,
            gathered.layers,
            gathered.rows,
            [],
        )

    def units(self) -> int:
        """Units seen so far: exact until the capacity is reached, from then on an estimate."""
        self._merge()
        rows = self._rows
        if len(rows) < self._capacity:
            return len(rows)
        return int((self._capacity - 1) / rows.unit[-1])

    def _merge(self) -> None:
        if self._pending:
            self._rows = _merged([self._rows, *self._pending], self._capacity)
            self._pending = []

    def _keyed(self, sample: Sample, prompt: NDArray[np.float32]) -> Rows:
        window = sample.time_unix_nano.astype(np.uint64) // np.uint64(WINDOW_SECONDS * 10**9)
        # Requests whose values lie in several schemas come once with each; which one is kept is by hash too.
        schema = zlib.crc32(repr((sample.names, sample.projection_layers)).encode())
        padded = np.full((len(sample), self._rows.prompt.shape[1]), np.nan, np.float32)
        padded[:, : prompt.shape[1]] = prompt
        return Rows(
            uniform(sample.cluster + window * _GOLDEN, self._seed + _PURPOSE_UNIT),
            uniform(sample.seed, schema),
            sample.cluster,
            sample.length,
            sample.time_unix_nano,
            aligned(sample.features, sample.names, self.names),
            aligned_projection(sample, self.layers),
            padded,
        )


def _merged(parts: list[Rows], capacity: int) -> Rows:
    rows = Rows(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Rows)))
    order = np.lexsort((rows.row, rows.unit))
    unit = rows.unit[order]
    first = np.ones(len(order), np.bool_)
    first[1:] = unit[1:] != unit[:-1]
    return rows.take(order[first][:capacity])


def _two(layers: tuple[int, ...]) -> tuple[int, ...]:
    """The middle one and the last: enough to tell classes and drift, also where a study measures all."""
    return layers if len(layers) <= _PROJECTION_LAYERS else (layers[len(layers) // 2], layers[-1])


def _no_rows(names: int, projected: int, prompt: int) -> Rows:
    none = np.zeros(0)
    return Rows(
        none,
        none,
        none.astype(np.uint64),
        none.astype(np.int64),
        none.astype(np.uint64),
        np.zeros((0, names), np.float32),
        np.zeros((0, projected), np.float32),
        np.zeros((0, prompt), np.float32),
    )


def _widened(rows: Rows, names: int, layers: int, prompt: int) -> Rows:
    return replace(
        rows,
        features=_padded(rows.features, names),
        projection=_padded(rows.projection, layers * PROJECTION_COMPONENTS),
        prompt=_padded(rows.prompt, max(prompt, rows.prompt.shape[1])),
    )


def _padded(values: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    padded: NDArray[np.float32] = np.full((len(values), width), np.nan, np.float32)
    padded[:, : values.shape[1]] = values
    return padded

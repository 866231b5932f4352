"""A table of segments in, the numbers that detectors look at out: one row for each request and kind."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from introspan_collector.layout import is_counted, layout
from introspan_wire.codec import SCHEMAS_KEPT, Schema, SegmentTable
from introspan_wire.signals import Kind

_PROJECTION = "residual.projection"
_PIT = "sampler.pit"
_SEED_KEY = b"introspan detect"
_LAST_CHOICE = 4


class Feature(NamedTuple):
    """One scalar of a request: a signal at a layer, heads averaged. layer is -1 where the signal has none."""

    signal: str
    layer: int


REPETITION = Feature("output.repetition", -1)
"""The only count that is compared: unlike the others it need not be zero while all is well."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """n requests of one model, adapter and kind, one row each; NaN = not measured.

    features: float32 [n, len(names)] of every signal that means something compared with a reference; projection:
    float32 [n, len(projection_layers) · 32]; length: tokens attended at the row; seed: uint64 [n], uniform by hash of
    the request; cluster, request_id and trace_id as in the table; time of receipt.
    """

    kind: Kind
    names: tuple[Feature, ...]
    features: NDArray[np.float32]
    projection_layers: tuple[int, ...]
    projection: NDArray[np.float32]
    length: NDArray[np.int64]
    seed: NDArray[np.uint64]
    cluster: NDArray[np.uint64]
    request_id: tuple[str, ...]
    trace_id: NDArray[np.uint8]  # [n, 16]
    time_unix_nano: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.request_id)

    def take(self, rows: NDArray[np.intp]) -> "Sample":
        """Some of the requests, in the order given."""
        return Sample(
            self.kind,
            self.names,
            self.features[rows],
            self.projection_layers,
            self.projection[rows],
            self.length[rows],
            self.seed[rows],
            self.cluster[rows],
            tuple(self.request_id[row] for row in rows.tolist()),
            self.trace_id[rows],
            self.time_unix_nano[rows],
        )


def samples(table: SegmentTable, received_unix_nano: int | None = None) -> Iterator[tuple[str, Sample]]:
    """The requests of a table by adapter, those segments left out that were not chosen.

    Their time is that of receipt, where it is given: a producer's wrong clock makes no reference older than it is.

    A request gives its prompt row and one decoded segment: the first, second, third or fourth with probability
    1/2, 1/4, 1/8, 1/8. Further segments resemble the first, so they would count the same evidence twice.
    """
    if not len(table):
        return
    seed = np.array([_seed(request_id) for request_id in table.request_id], np.uint64)
    chosen = np.ones(len(table), np.bool_)
    if table.schema.kind is Kind.DECODED:
        chosen = table.segment_index == _choice(seed)
    adapters = np.array(table.adapter)
    for adapter in sorted(set(table.adapter)):
        rows = np.flatnonzero(chosen & (adapters == adapter))
        if rows.size:
            yield adapter, _sample(table, seed, rows, received_unix_nano)


def uniform(seed: NDArray[np.uint64], purpose: int) -> NDArray[np.float64]:
    """A number in (0, 1) for each seed, uniform, and independent between purposes.

    (SplitMix64, Steele et al. 2014)
    """
    state = seed + np.uint64((purpose * 0x9E3779B97F4A7C15) % 2**64)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    drawn: NDArray[np.float64] = ((state >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    return drawn


class _Plan(NamedTuple):
    """Columns of a schema: in the order of features, where each feature starts, and the projections."""

    order: NDArray[np.intp]
    starts: NDArray[np.intp]
    names: tuple[Feature, ...]
    projection: NDArray[np.intp]
    projection_layers: tuple[int, ...]


@lru_cache(maxsize=SCHEMAS_KEPT)
def _plan(schema: Schema) -> _Plan:
    plan = layout(schema)
    names = tuple(Feature(*group) for group in plan.groups)
    ends = [*plan.column_starts[1:].tolist(), len(plan.order)]
    compared = [i for i, name in enumerate(names) if _is_compared(schema.kind, name)]
    pieces = [plan.order[plan.column_starts[i] : ends[i]] for i in compared]
    sizes = [len(piece) for piece in pieces]
    found = [(i, column) for i, column in enumerate(schema.columns) if column.signal == _PROJECTION]
    found.sort(key=lambda item: (item[1].layer, item[1].component))
    return _Plan(
        np.concatenate(pieces) if pieces else np.zeros(0, np.intp),
        np.cumsum([0, *sizes[:-1]]) if sizes else np.zeros(0, np.intp),
        tuple(names[i] for i in compared),
        np.array([i for i, _ in found], np.intp),
        tuple(sorted({column.layer for _, column in found})),
    )


def _is_compared(kind: Kind, name: Feature) -> bool:
    """Whether a reference says anything about it: counts and the sampler's draws need none, see nulls.py, draws.py."""
    if name == REPETITION:
        return kind is Kind.DECODED
    return not is_counted(name.signal) and name.signal != _PIT


def _sample(
    table: SegmentTable, seed: NDArray[np.uint64], rows: NDArray[np.intp], received_unix_nano: int | None
) -> Sample:
    plan = _plan(table.schema)
    values = table.values[rows]
    features: NDArray[np.float32] = np.zeros((len(rows), 0), np.float32)
    if plan.names:
        sizes = np.diff([*plan.starts.tolist(), len(plan.order)])
        # A mean beyond the largest number is as far from healthy as infinity.
        with np.errstate(over="ignore"):
            features = np.add.reduceat(values[:, plan.order], plan.starts, axis=1)
        features /= sizes.astype(np.float32)
    first = table.token_start[rows].astype(np.int64)
    times = table.time_unix_nano[rows]
    if received_unix_nano is not None:
        times = np.full_like(times, received_unix_nano)
    return Sample(
        table.schema.kind,
        plan.names,
        features,
        plan.projection_layers,
        values[:, plan.projection],
        first + table.token_count[rows],
        seed[rows],
        table.cluster_key[rows],
        tuple(table.request_id[row] for row in rows.tolist()),
        table.trace_id[rows],
        times,
    )


def _seed(request_id: str) -> int:
    # Keyed, because the SDK already chose the measured requests by another hash of the same id.
    digest = hashlib.blake2b(request_id.encode(), digest_size=8, key=_SEED_KEY).digest()
    return int.from_bytes(digest, "little")


def _choice(seed: NDArray[np.uint64]) -> NDArray[np.int64]:
    """1, 2, 3 or 4 with probability 1/2, 1/4, 1/8, 1/8."""
    chosen: NDArray[np.int64] = np.minimum(1 + np.floor(-np.log2(uniform(seed, 0))), _LAST_CHOICE).astype(
        np.int64
    )
    return chosen

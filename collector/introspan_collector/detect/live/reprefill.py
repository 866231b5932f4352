"""Distances between decoded and prefilled states in, evidence that they are larger than healthy ones out.

No reference has to be built for it: the first N₀ comparisons of a model, one of each caller in ten seconds, taken while
nothing is the matter, say how large rounding is. X = 1{distance > twice the k-th largest of the N₀, and a few
roundings}, for k = ⌈.05 N₀⌉ (side "high") and k = 1 ("highest", which finds what happens to few requests). Beyond
PAGE_RATIO times the largest, twice in a row at one replica, people are told at once, as of a canary. Given the
N₀, the chance that a healthy one exceeds the k-th largest is Beta(k, N₀ + 1 − k), which bounds m as for the bank and
extremes (adr/0009); a cut beyond it only lowers the chance. It is beyond because rounding depends on what else is in
the batch. Measured on SmolLM2 with one block of the cache wrong: 0.05 where 1e-6 is healthy in float32, 0.04 to 0.06
where 0.006 to 0.017 is in bfloat16.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect import checkpoint
from introspan_collector.detect.incident.finding import Exemplar
from introspan_collector.detect.reference.reference import CHANCE, Identity
from introspan_collector.detect.reference.reservoir import WINDOW_SECONDS
from introspan_collector.detect.sequential.evidence import Evidence, Stream
from introspan_collector.detect.sequential.tolerance import tail_bound
from introspan_wire.codec import SegmentTable

SIGNAL = "consistency.reprefill"
DETECTOR = "reprefill"

_WHAT = "comparisons with requests sent again"
_VERSION = 1
PAGE_RATIO = 8.0
"""A distance of so many times the largest healthy one is no chance: two such requests in a row page."""

_MOST_MODELS = _MOST_REPLICAS = 64
_SIDES = ("high", "highest")
_TAIL = 0.05
_BEYOND = 2.0
_EPSILON = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7, "float64": 2.0**-52}
# As of a canary: sixteen of bfloat16 would hide a fault.
_ROUNDINGS, _LARGEST_ROUNDING = 16.0, 2.0**-8
_GAUSSIAN_MAD = 1.4826
_LEAST_SPREAD = 0.1  # of ln distance


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """What distances are compared with. cut: float64 [sides, layers], bound: m, float64 [sides · layers].

    largest: float64 [layers], healthy one, or a few roundings; centre and spread: of the logarithm of a distance,
    float64 [layers].
    """

    cut: NDArray[np.float64]
    largest: NDArray[np.float64]
    bound: NDArray[np.float64]
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]


class _Healthy:
    """The first comparisons of one model: distances, float64 [n, layers], and who they are of."""

    def __init__(self, layers: tuple[int, ...], fewest: int, epsilon: float) -> None:
        self.layers = layers
        self.distances = np.zeros((0, len(layers)))
        self.units: set[tuple[int, int]] = set()
        self._fewest = fewest
        self._epsilon = epsilon
        self._cut: _Cut | None = None
        self._streams: dict[str, tuple[Stream, ...]] = {}
        self._far_before: set[str] = set()

    def add(self, distances: NDArray[np.float64], clusters: list[int], window: int) -> None:
        """Takes healthy ones until there are enough."""
        for distance, cluster in zip(distances, clusters, strict=True):
            unit = (cluster, window)
            if len(self.distances) < self._fewest and unit not in self.units and np.isfinite(distance).all():
                self.units.add(unit)
                self.distances = np.vstack([self.distances, distance])

    def cut(self) -> _Cut | None:
        """None while there are too few."""
        if self._cut is None and len(self.distances) >= self._fewest:
            size, count = self.distances.shape
            rounding = min(_ROUNDINGS * self._epsilon, _LARGEST_ROUNDING)
            ordered = np.maximum(np.sort(self.distances, axis=0), rounding)
            ranks = [math.ceil(_TAIL * size), 1]
            bounds = [tail_bound(rank, size, CHANCE / (len(ranks) * count)) for rank in ranks]
            log = np.log(ordered)
            centre = np.median(log, axis=0)
            spread = _GAUSSIAN_MAD * np.median(np.abs(log - centre), axis=0)
            self._cut = _Cut(
                _BEYOND * ordered[[-rank for rank in ranks]],
                ordered[-1],
                np.repeat(bounds, count),
                centre,
                np.maximum(spread, _LEAST_SPREAD),
            )
        return self._cut

    def is_far_again(self, replica: str, ratio: NDArray[np.float64]) -> bool:
        """Whether two requests in a row of a replica are beyond PAGE_RATIO. ratio: largest of each, float64 [n]."""
        known = ratio[~np.isnan(ratio)]
        far = np.concatenate([[replica in self._far_before], known > PAGE_RATIO])
        (self._far_before.add if far[-1] else self._far_before.discard)(replica)
        return bool((far[1:] & far[:-1]).any())

    def streams(self, identity: Identity, replica: str) -> tuple[Stream, ...]:
        """One for each side and layer of a replica."""
        if replica not in self._streams:
            if len(self._streams) >= _MOST_REPLICAS:
                self._streams.clear()
                self._far_before.clear()
            self._streams[replica] = tuple(
                Stream(identity.model, replica, identity.adapter, DETECTOR, "", SIGNAL, layer, side)
                for side in _SIDES
                for layer in self.layers
            )
        return self._streams[replica]


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Evidence of the requests of a table, and the one that is furthest off, if any is too far.

    ratio: how many times the largest healthy distance it is at the layer where it is most, which pages if it pages.
    """

    evidence: Evidence
    exemplar: Exemplar | None
    stream: Stream
    ratio: float
    pages: bool


class Reprefill:
    """Compares requests with the first healthy ones of the same model, engine, dtype and adapter."""

    def __init__(self, fewest: int) -> None:
        self._fewest = fewest
        self._healthy: dict[Identity, _Healthy] = {}

    def see(
        self,
        identity: Identity,
        replica: str,
        table: SegmentTable,
        rows: NDArray[np.intp],
        received_unix_nano: int,
        *,
        is_healthy: bool,
    ) -> Judged | None:
        """Takes comparisons; None while there is nothing to judge them by. is_healthy: nothing is the matter."""
        places = [i for i, column in enumerate(table.schema.columns) if column.signal == SIGNAL]
        if not places:
            return None
        distances = table.values[rows][:, places].astype(np.float64)
        healthy = self._of(identity, tuple(table.schema.columns[place].layer for place in places))
        cut = healthy.cut()
        if cut is None:
            if is_healthy:
                window = received_unix_nano // round(WINDOW_SECONDS * 1e9)
                healthy.add(distances, table.cluster_key[rows].tolist(), window)
            return None
        both = distances[:, None, :]
        x = np.where(np.isnan(both), np.nan, both > cut.cut).reshape(len(rows), -1)
        evidence = Evidence(healthy.streams(identity, replica), cut.bound, x, table.cluster_key[rows])
        ratio = distances / cut.largest
        each = np.where(np.isnan(ratio).all(axis=1), np.nan, np.nan_to_num(ratio).max(axis=1))
        layer = int(np.nan_to_num(ratio).max(axis=0).argmax())
        return Judged(
            evidence,
            _exemplar(table, rows, replica, healthy.layers, distances, cut),
            evidence.streams[layer - len(healthy.layers)],
            float(np.nan_to_num(each).max()),
            healthy.is_far_again(replica, each),
        )

    def forget(self, model: str, adapter: str) -> None:
        """Begins anew: what is served is healthy, people say."""
        for identity in list(self._healthy):
            if (identity.model, identity.adapter) == (model, adapter):
                del self._healthy[identity]

    def progress(self) -> dict[Identity, tuple[int, int]]:
        """How many comparisons there are of how many that are needed."""
        return {identity: (len(one.distances), self._fewest) for identity, one in self._healthy.items()}

    def snapshot(self) -> bytes:
        """The whole state."""
        header = {
            "models": [
                {"identity": asdict(identity), "layers": one.layers, "units": sorted(one.units)}
                for identity, one in self._healthy.items()
            ]
        }
        arrays = {f"distances_{i}": one.distances for i, one in enumerate(self._healthy.values())}
        return checkpoint.dump(_WHAT, _VERSION, header, arrays)

    def restore(self, data: bytes) -> None:
        """Puts a snapshot's state in place of this one. Raises ValueError for one that it cannot read."""
        header, arrays = checkpoint.load(_WHAT, _VERSION, data)
        self._healthy = {}
        for i, saved in enumerate(header["models"]):
            self._restore(saved, arrays[f"distances_{i}"])

    # Any: as checkpoint.load gives it.
    def _restore(self, saved: Mapping[str, Any], distances: NDArray[np.float64]) -> None:
        one = self._of(Identity(**saved["identity"]), tuple(saved["layers"]))
        one.distances = distances
        one.units = {(cluster, window) for cluster, window in saved["units"]}

    def _of(self, identity: Identity, layers: tuple[int, ...]) -> _Healthy:
        """What is known of a model, the one asked for longest ago making room; other layers are another beginning."""
        one = self._healthy.pop(identity, None)
        if one is None or one.layers != layers:
            one = _Healthy(layers, self._fewest, _EPSILON.get(identity.dtype, _EPSILON["bfloat16"]))
        if len(self._healthy) >= _MOST_MODELS:
            del self._healthy[next(iter(self._healthy))]
        self._healthy[identity] = one
        return one


def _exemplar(
    table: SegmentTable,
    rows: NDArray[np.intp],
    replica: str,
    layers: tuple[int, ...],
    distances: NDArray[np.float64],
    cut: _Cut,
) -> Exemplar | None:
    ratio = np.nan_to_num(distances / cut.cut[0])
    row, layer = np.unravel_index(int(ratio.argmax()), ratio.shape)
    if ratio[row, layer] <= 1.0:
        return None
    z = (np.log(distances[row, layer]) - cut.centre[layer]) / cut.spread[layer]
    at = int(rows[row])
    trace = table.trace_id[at]
    return Exemplar(
        table.request_id[at],
        trace.tobytes().hex() if trace.any() else "",
        replica,
        f"{SIGNAL} at layer {layers[layer]}",
        float(z),
        "z",
    )

"""Evidence of requests in, at the close of a tick one mean of cluster means for each stream out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect import checkpoint
from introspan_collector.detect.sequential.evidence import Stream

FEWEST_CLUSTERS = 8
MOST_STREAMS = 1 << 20

_WHAT = "the tick"
_VERSION = 1
_CLUSTER_BITS = 44
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_GATHERED = 1 << 18


@dataclass(frozen=True, slots=True)
class TickSettings:
    """A stream's tick lasts tick_seconds, or longer until its clusters are enough, but not over longest_seconds.

    Whoever has a single tenant never has enough clusters: after longest_seconds those that came are taken.
    pair_limit bounds (stream, cluster) pairs that wait, 24 bytes each.
    """

    tick_seconds: float = 10.0
    longest_seconds: float = 600.0
    pair_limit: int = 1 << 21

    def __post_init__(self) -> None:
        if not 0 < self.tick_seconds <= self.longest_seconds:
            raise ValueError(
                f"tick_seconds must be > 0 and at most longest_seconds = {self.longest_seconds}, "
                f"got {self.tick_seconds}"
            )
        if self.pair_limit < 1:
            raise ValueError(f"pair_limit must be >= 1, got {self.pair_limit}")


@dataclass(frozen=True, slots=True, eq=False)
class Tick:
    """What one tick gave. x: X̄, float64 [S], NaN for a stream that goes on waiting; clusters: int64 [S] behind it."""

    x: NDArray[np.float64]
    clusters: NDArray[np.int64]


class Ticks:
    """Gathers evidence by stream and cluster. When a tick closes is decided by arrivals, never by values.

    A burst of one tenant is one cluster, so it moves a mean of n clusters by at most 1/n.
    """

    def __init__(self, settings: TickSettings | None = None) -> None:
        self._settings = settings or TickSettings()
        self.dropped_values = 0
        """Values left out because pair_limit clusters of streams were waiting; the earlier ones stay."""
        self._streams: tuple[Stream, ...] = ()
        self._fewest = np.zeros(0, np.int64)
        self._since = np.zeros(0)
        self._opened: float | None = None
        self._pairs = _no_pairs()
        self._gathered: list[tuple[NDArray[np.uint64], NDArray[np.float64]]] = []
        self._gathered_values = 0

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams that are followed; rows are in their order."""
        return self._streams

    def follow(self, streams: Sequence[Stream], fewest_clusters: NDArray[np.int64]) -> None:
        """From now on these streams, each once; what was gathered for others is dropped.

        fewest_clusters: int64 [S], clusters that a stream waits for. Raises ValueError for too many streams.
        """
        if not (len(streams) == len(set(streams)) == len(fewest_clusters)) or len(streams) > MOST_STREAMS:
            raise ValueError(
                f"streams must be distinct, at most {MOST_STREAMS}, with a number of clusters each, "
                f"got {len(streams)}, {len(set(streams))} distinct, {len(fewest_clusters)} numbers"
            )
        rows = {stream: row for row, stream in enumerate(streams)}
        moved = np.array([rows.get(stream, -1) for stream in self._streams], np.int64)
        since = np.full(len(streams), np.nan)
        since[moved[moved >= 0]] = self._since[moved >= 0]
        self._pairs = self._pairs.moved(moved)
        self._gathered = [_moved(keys, x, moved) for keys, x in self._gathered]
        self._gathered_values = sum(len(x) for _, x in self._gathered)
        self._streams, self._since, self._fewest = tuple(streams), since, fewest_clusters.copy()

    def add(self, rows: NDArray[np.intp], clusters: NDArray[np.uint64], x: NDArray[np.float64]) -> None:
        """Takes evidence: three arrays that broadcast together; NaN is no evidence.

        For n requests and k streams: rows [k], clusters [n, 1], x [n, k]. Raises ValueError for x outside [0, 1] or a
        row that no stream has.
        """
        # A product with an odd number only spreads small numbers; keys that are hashes already stay distinct.
        spread = (clusters.astype(np.uint64, copy=False) * _GOLDEN) >> np.uint64(64 - _CLUSTER_BITS)
        keys = (rows.astype(np.uint64) << np.uint64(_CLUSTER_BITS)) | spread
        keys, x = np.broadcast_arrays(keys, x)
        measured = ~np.isnan(x)
        keys, x = keys[measured], x[measured].astype(np.float64)
        if not len(x):
            return
        if not (x.min() >= 0 and x.max() <= 1):
            raise ValueError(f"x must be in [0, 1], got {x.min()} to {x.max()}")
        if not (rows.min() >= 0 and rows.max() < len(self._streams)):
            raise ValueError(f"rows must be in [0, {len(self._streams)}), got {rows.min()} to {rows.max()}")
        self._gathered.append((keys, x))
        self._gathered_values += len(x)
        if self._gathered_values >= _GATHERED:
            self._merge()

    def close(self, now: float) -> Tick | None:
        """The tick that is over by now, in seconds; None while it is not, or when no stream has enough."""
        if self._opened is None or now < self._opened:
            self._opened = now  # the first look, or a clock that was set back
        if now - self._opened < self._settings.tick_seconds:
            return None
        opened, self._opened = self._opened, now
        self._merge()
        pairs = self._pairs
        clusters = np.bincount(pairs.row, minlength=len(self._streams))
        self._since = np.where(clusters > 0, np.fmin(self._since, opened), np.nan)
        ready = (clusters > 0) & (
            (clusters >= self._fewest) | (now - self._since >= self._settings.longest_seconds)
        )
        if not ready.any():
            return None
        sums = np.bincount(pairs.row, weights=pairs.sum / pairs.count, minlength=len(self._streams))
        self._pairs = pairs.where(~ready[pairs.row])
        self._since[ready] = np.nan
        # Rounding must not carry a mean of ones past 1.
        mean = np.minimum(sums / np.maximum(clusters, 1), 1.0)
        return Tick(np.where(ready, mean, np.nan), np.where(ready, clusters, 0))

    def snapshot(self) -> bytes:
        """The whole state."""
        keys = [keys for keys, _ in self._gathered]
        values = [x for _, x in self._gathered]
        return checkpoint.dump(
            _WHAT,
            _VERSION,
            {"streams": self._streams, "opened": self._opened, "dropped_values": self.dropped_values},
            {
                "fewest": self._fewest,
                "since": self._since,
                "key": self._pairs.key,
                "sum": self._pairs.sum,
                "count": self._pairs.count,
                "gathered_key": np.concatenate([np.zeros(0, np.uint64), *keys]),
                "gathered_x": np.concatenate([np.zeros(0), *values]),
            },
        )

    def restore(self, data: bytes) -> None:
        """Puts a snapshot's state in place of this one. Raises ValueError for one that it cannot read."""
        header, arrays = checkpoint.load(_WHAT, _VERSION, data)
        self._streams = tuple(Stream(*fields) for fields in header["streams"])
        self._opened = header["opened"]
        self.dropped_values = header["dropped_values"]
        self._fewest, self._since = arrays["fewest"], arrays["since"]
        self._pairs = _Pairs(arrays["key"], arrays["sum"], arrays["count"])
        # Not merged: sums must be taken in the order in which the original would take them.
        self._gathered_values = len(arrays["gathered_x"])
        self._gathered = [(arrays["gathered_key"], arrays["gathered_x"])] if self._gathered_values else []

    def _merge(self) -> None:
        if not self._gathered:
            return
        x = np.concatenate([x for _, x in self._gathered])
        keys = np.concatenate([self._pairs.key, *(keys for keys, _ in self._gathered)])
        self._gathered, self._gathered_values = [], 0
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order], prepend=~keys[order[:1]]))
        merged = _Pairs(
            keys[order[starts]],
            np.add.reduceat(np.concatenate([self._pairs.sum, x])[order], starts),
            np.add.reduceat(np.concatenate([self._pairs.count, np.ones(len(x))])[order], starts),
        )
        if len(starts) > self._settings.pair_limit:
            # By arrival: a choice that looked at values would move the means.
            first = order[starts]
            kept = first <= np.partition(first, self._settings.pair_limit - 1)[self._settings.pair_limit - 1]
            self.dropped_values += int(merged.count[~kept].sum())
            merged = merged.where(kept)
        self._pairs = merged


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """Evidence by (stream, cluster): key has the row above 44 bits of the cluster; sum and count of its values."""

    key: NDArray[np.uint64]
    sum: NDArray[np.float64]
    count: NDArray[np.float64]

    @property
    def row(self) -> NDArray[np.int64]:
        return (self.key >> np.uint64(_CLUSTER_BITS)).astype(np.int64)

    def where(self, kept: NDArray[np.bool_]) -> "_Pairs":
        return _Pairs(self.key[kept], self.sum[kept], self.count[kept])

    def moved(self, moved: NDArray[np.int64]) -> "_Pairs":
        kept = moved[self.row] >= 0 if len(self.key) else np.zeros(0, np.bool_)
        left = self.where(kept)
        return _Pairs(_renumbered(left.key, moved), left.sum, left.count)


def _no_pairs() -> _Pairs:
    return _Pairs(np.zeros(0, np.uint64), np.zeros(0), np.zeros(0))


def _moved(
    keys: NDArray[np.uint64], x: NDArray[np.float64], moved: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    kept = moved[(keys >> np.uint64(_CLUSTER_BITS)).astype(np.int64)] >= 0
    return _renumbered(keys[kept], moved), x[kept]


def _renumbered(keys: NDArray[np.uint64], moved: NDArray[np.int64]) -> NDArray[np.uint64]:
    row = moved[(keys >> np.uint64(_CLUSTER_BITS)).astype(np.int64)].astype(np.uint64)
    cluster = keys & np.uint64((1 << _CLUSTER_BITS) - 1)
    return (row << np.uint64(_CLUSTER_BITS)) | cluster

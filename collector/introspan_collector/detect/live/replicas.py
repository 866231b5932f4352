"""Requests of several replicas in, evidence that one of them is not like the others out: it isolates a sick machine.

While all replicas are alike, a request of a cell of the reference has the same distribution of U wherever it is
served. That distribution differs from cell to cell, as a reference is finite, and routers prefer replicas for some
prompts. So each replica is compared with sets of requests that others served, drawn at random at the end of a tick with
as many requests of each cell as its own set has: then its mean of U is the highest of K + 1 with probability 1/(K + 1)
exactly, whatever the reference and the mixture of each replica are. What no other replica served is left out. K changes
from tick to tick, so X = 1{highest} · (K + 1)/16 and 1{lowest} · (K + 1)/16, whose mean is m = 1/16 for every K ≤ 15:
as λ = c/m, the bet is the same. Ties are broken at random.

A cluster counts once in a tick, at one of the replicas that served it, drawn by lot: routers send a caller's requests
to the replica that has its prefix, and a burst of like ones would make the mean of its set vary more than that of a set
drawn from many callers, so that it is the highest more often than one in K + 1.

Cells are all that is matched: a router that sends whole tenants to one replica for long makes it differ in what a cell
does not hold.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect import checkpoint
from introspan_collector.detect.reference.reference import Identity
from introspan_collector.detect.sample import Feature
from introspan_collector.detect.sequential.evidence import Evidence, Stream
from introspan_wire.signals import Kind

_FEWEST_REQUESTS = 8
_MOST_REQUESTS = 64
_MOST_REPLICAS = 64
_MOST_SETS = 16
_SMALLEST_SHARE = 0.25  # of the requests that could be compared with one set: more sets make each smaller
SIDES = ("highest", "lowest")

_WHAT = "replicas"
_VERSION = 1


class _Served(NamedTuple):
    """Requests of one replica, each of another cluster: U float64 [n, F], cell intp [n], cluster uint64 [n]."""

    u: NDArray[np.float64]
    cell: NDArray[np.intp]
    cluster: NDArray[np.uint64]


class Replicas:
    """Follows one kind of row. Forgets a tick when it closes; what came since, and the lots, are its state."""

    def __init__(self, identity: Identity, kind: Kind, names: tuple[Feature, ...], seed: int = 0) -> None:
        self._identity = identity
        self._kind = kind
        self._names = names
        self._rng = np.random.default_rng(seed)
        self._nothing = _Served(np.zeros((0, len(names))), np.zeros(0, np.intp), np.zeros(0, np.uint64))
        self._seen: dict[str, _Served] = {}
        self._streams: dict[str, tuple[Stream, ...]] = {}

    def add(
        self, replica: str, u: NDArray[np.float64], cell: NDArray[np.intp], cluster: NDArray[np.uint64]
    ) -> None:
        """Takes the U of requests of a replica, float64 [n, F], their cells and clusters, [n].

        The first request of each cluster in a tick is kept; beyond 64 clusters a tick they are left out.
        """
        if not len(cell) or (replica not in self._seen and len(self._seen) >= _MOST_REPLICAS):
            return
        kept = self._seen.get(replica, self._nothing)
        _, first = np.unique(cluster, return_index=True)
        new = np.sort(first)
        new = new[~np.isin(cluster[new], kept.cluster)][: _MOST_REQUESTS - len(kept.cell)]
        self._seen[replica] = _Served(
            np.concatenate([kept.u, u[new]]),
            np.concatenate([kept.cell, cell[new]]),
            np.concatenate([kept.cluster, cluster[new]]),
        )

    def tick(self, tick: int) -> Iterator[Evidence]:
        """Evidence of each replica of a tick that has closed; tick is its number."""
        seen = sorted(self._seen.items())
        self._seen.clear()
        if len(seen) < 2:
            return
        u, cell, cluster = (np.concatenate(parts) for parts in zip(*(kept for _, kept in seen), strict=True))
        owner = np.repeat(np.arange(len(seen)), [len(kept.cell) for _, kept in seen])
        # At random within each cell: who is in which set has nothing to do with what was measured.
        shuffled = self._rng.permutation(len(cell))
        _, once = np.unique(cluster[shuffled], return_index=True)
        shuffled = shuffled[np.sort(once)]
        order = shuffled[np.argsort(cell[shuffled], kind="stable")]
        bound = np.full(2 * len(self._names), 1.0 / _MOST_SETS)
        for number, (replica, _) in enumerate(seen):
            sets = _matched(order, cell, owner == number, min(len(seen), _MOST_SETS) - 1)
            if sets is not None:
                row = self._x(u[sets].mean(axis=1))
                yield Evidence(self._streams_of(replica), bound, row, np.array([tick], np.uint64))

    def snapshot(self) -> bytes:
        """What came since the last tick, and where the lots are."""
        sizes = [[replica, len(kept.cell)] for replica, kept in self._seen.items()]
        header = {"seen": sizes, "lots": self._rng.bit_generator.state}
        parts = zip(self._nothing, *self._seen.values(), strict=True)
        arrays = {name: np.concatenate(part) for name, part in zip(_Served._fields, parts, strict=True)}
        return checkpoint.dump(_WHAT, _VERSION, header, arrays)

    def restore(self, data: bytes) -> None:
        """Puts a snapshot's state in place of this one. Raises ValueError for one that it cannot read."""
        header, arrays = checkpoint.load(_WHAT, _VERSION, data)
        self._rng.bit_generator.state = header["lots"]
        ends = np.cumsum([size for _, size in header["seen"]], dtype=np.intp)
        parts = (np.split(arrays[name], ends[:-1]) for name in _Served._fields)
        self._seen = {
            replica: _Served(*rows)
            for (replica, _), rows in zip(header["seen"], zip(*parts, strict=True), strict=False)
        }

    def _x(self, means: NDArray[np.float64]) -> NDArray[np.float64]:
        """X of the replica whose mean comes first, float64 [1, 2 F], from the means of all sets, [K + 1, F]."""
        broken = means + self._rng.uniform(0.0, 1e-12, means.shape)
        x = (
            np.stack([_is_extreme(broken, np.argmax), _is_extreme(broken, np.argmin)])
            * len(means)
            / _MOST_SETS
        )
        x[:, np.isnan(means).any(axis=0)] = np.nan
        return x.reshape(1, -1)

    def _streams_of(self, replica: str) -> tuple[Stream, ...]:
        known = self._streams.get(replica)
        if known is None:
            if len(self._streams) >= _MOST_REPLICAS:
                self._streams.clear()
            who = self._identity.model, replica, self._identity.adapter
            known = self._streams[replica] = tuple(
                Stream(*who, "replicas", self._kind.value, name.signal, name.layer, side)
                for side in SIDES
                for name in self._names
            )
        return known


def _matched(
    order: NDArray[np.intp], cell: NDArray[np.intp], is_own: NDArray[np.bool_], most_peers: int
) -> NDArray[np.intp] | None:
    """Rows of a replica and, below, of K sets of others with as many of each cell, intp [K + 1, n]; None for too few.

    order: all rows by cell, at random inside each. K is the most, up to most_peers, that leaves sets large enough: it
    depends on how many requests there are, never on what was measured.
    """
    own, others = order[is_own[order]], order[~is_own[order]]
    cells = int(cell.max()) + 1
    served = np.bincount(cell[own], minlength=cells)
    elsewhere = np.bincount(cell[others], minlength=cells)
    take = np.minimum(served, elsewhere // np.arange(1, most_peers + 1)[:, None])
    size = take.sum(axis=1)
    if size[0] < _FEWEST_REQUESTS:
        return None
    peers = int(np.flatnonzero(size >= max(_FEWEST_REQUESTS, _SMALLEST_SHARE * size[0]))[-1]) + 1
    wanted = take[peers - 1]
    chosen = own[_place(cell[own], served) < wanted[cell[own]]]
    place = _place(cell[others], elsewhere)
    is_drawn = place < peers * wanted[cell[others]]
    drawn = others[is_drawn][np.argsort(place[is_drawn] % peers, kind="stable")]
    return np.vstack([chosen, drawn.reshape(peers, -1)])


def _place(cell: NDArray[np.intp], count: NDArray[np.intp]) -> NDArray[np.intp]:
    """The number of each row in its cell, from 0; rows come by cell."""
    return np.asarray(np.arange(len(cell)) - (np.cumsum(count) - count)[cell])


def _is_extreme(means: NDArray[np.float64], which: Callable[..., NDArray[np.intp]]) -> NDArray[np.float64]:
    """1 where the first set is the extreme one of a feature, float64 [F]."""
    return np.asarray(which(np.nan_to_num(means), axis=0) == 0, np.float64)

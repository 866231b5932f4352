"""Requests of several replicas in, evidence that one of them is not like the others out: it isolates a sick machine.

Inside its cell of the reference a request has the same distribution of U wherever it is served, so replicas need not
serve the same mixture. At a tick each replica's mean of U over equally many requests is ranked: while all are alike,
each is the highest with probability 1/R exactly, whatever the reference is. How many replicas have enough requests
changes from tick to tick, so X = 1{highest} · R/64 and 1{lowest} · R/64, whose mean is m = 1/64 for every R: as
λ = c/m, the bet is the same. Ties are broken at random. Affinity of tenants to replicas is not: a router that sends
whole tenants to one replica makes it differ in what a class does not hold.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.reference.reference import Identity
from introspan_collector.detect.sample import Feature
from introspan_collector.detect.sequential.evidence import Evidence, Stream
from introspan_wire.signals import Kind

_FEWEST_REQUESTS = 8
_MOST_REQUESTS = 64
_MOST_REPLICAS = 64
SIDES = ("highest", "lowest")


class Replicas:
    """Follows one kind of row. Forgets a tick when it closes, so there is no state to save but a random one."""

    def __init__(self, identity: Identity, kind: Kind, names: tuple[Feature, ...], seed: int = 0) -> None:
        self._identity = identity
        self._kind = kind
        self._names = names
        self._rng = np.random.default_rng(seed)
        self._seen: dict[str, list[NDArray[np.float64]]] = {}
        self._streams: dict[str, tuple[Stream, ...]] = {}

    def add(self, replica: str, u: NDArray[np.float64]) -> None:
        """Takes the U of requests of a replica, float64 [n, F]; beyond 64 a tick they are left out."""
        if replica not in self._seen and len(self._seen) >= _MOST_REPLICAS:
            return
        kept = self._seen.setdefault(replica, [])
        room = _MOST_REQUESTS - sum(map(len, kept))
        if room > 0:
            kept.append(u[:room])

    def tick(self, tick: int) -> Iterator[Evidence]:
        """Evidence of each replica of a tick that has closed; tick is its number."""
        counted = {replica: np.concatenate(kept) for replica, kept in sorted(self._seen.items())}
        self._seen.clear()
        enough = {replica: u for replica, u in counted.items() if len(u) >= _FEWEST_REQUESTS}
        if len(enough) < 2:
            return
        # Of fewer requests a mean spreads more, and would be the highest more often.
        equal = min(len(u) for u in enough.values())
        means = np.stack([u[:equal].mean(axis=0) for u in enough.values()])
        broken = means + self._rng.uniform(0.0, 1e-12, means.shape)
        x = np.stack([_is_extreme(broken, np.argmax), _is_extreme(broken, np.argmin)], axis=1)
        x *= len(enough) / _MOST_REPLICAS
        x[:, :, np.isnan(means).any(axis=0)] = np.nan
        bound = np.full(2 * len(self._names), 1.0 / _MOST_REPLICAS)
        for replica, row in zip(enough, x, strict=True):
            yield Evidence(self._streams_of(replica), bound, row.reshape(1, -1), np.array([tick], np.uint64))

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


def _is_extreme(means: NDArray[np.float64], which: Callable[..., NDArray[np.intp]]) -> NDArray[np.float64]:
    """1 where a replica is the extreme one of a feature, float64 [R, F]."""
    extreme = which(np.nan_to_num(means), axis=0)
    return np.asarray(np.arange(len(means))[:, None] == extreme, np.float64)

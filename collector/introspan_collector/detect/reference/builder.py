"""Healthy requests in, over hours; a reference out, as soon as there are enough of them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from introspan_collector.detect import checkpoint
from introspan_collector.detect.reference.alignment import aligned_projection
from introspan_collector.detect.reference.fitting import MOST_ROWS, MOST_SCORES, fit_reference
from introspan_collector.detect.reference.halves import Difference, differing_halves
from introspan_collector.detect.reference.recent import RecentRequests
from introspan_collector.detect.reference.reference import Counts, Identity, Reference, State
from introspan_collector.detect.reference.reservoir import Gathered, Reservoir, Rows
from introspan_collector.detect.sample import Feature, Sample
from introspan_wire.signals import PROJECTION_COMPONENTS, Kind

KINDS = (Kind.PROMPT, Kind.DECODED)
"""What a reference is made of; canaries have their own baseline."""

_WHAT = "a reference being built"
_VERSION = 1
_RECENT = 8192
_NAMED = 3
_COMPARED_AGAIN = 1.05


@dataclass(frozen=True, slots=True)
class Limits:
    """How much traffic a reference needs: provisional from the first number of clusters, frozen from the others."""

    provisional_clusters: int = 500
    frozen_clusters: int = 2000
    frozen_hours: float = 24.0

    def __post_init__(self) -> None:
        if not 1 <= self.provisional_clusters <= self.frozen_clusters:
            raise ValueError(
                f"provisional_clusters must be >= 1 and at most frozen_clusters = {self.frozen_clusters}, "
                f"got {self.provisional_clusters}"
            )
        if not self.frozen_hours >= 0:
            raise ValueError(f"frozen_hours must be >= 0, got {self.frozen_hours}")


@dataclass(frozen=True, slots=True)
class Progress:
    """What there is, and what is needed. reached: the state that the amount of traffic allows, None below both."""

    counts: Counts
    limits: Limits
    reached: State | None


class Builder:
    """Collects the traffic of one identity. It must be given only traffic in which no alarm is active."""

    def __init__(
        self, identity: Identity, limits: Limits | None = None, most_scores: int = MOST_SCORES, seed: int = 0
    ) -> None:
        self.identity = identity
        self._limits = limits or Limits()
        self._seed = seed
        capacity = most_scores + MOST_ROWS // 2
        self._reservoirs = {kind: Reservoir(kind, capacity, seed) for kind in KINDS}
        self._recent = RecentRequests(_RECENT, 0)
        self._requests = dict.fromkeys(KINDS, 0)
        self._span = (2**64 - 1, 0)
        self._differing: tuple[Difference, ...] = ()
        self._compared_requests = 0

    def add(self, sample: Sample) -> None:
        """Takes healthy requests; the prompt row of a request before its decoded row."""
        if not len(sample):
            return
        self._requests[sample.kind] += len(sample)
        times = sample.time_unix_nano
        self._span = (min(self._span[0], int(times.min())), max(self._span[1], int(times.max())))
        if sample.kind is Kind.PROMPT:
            nothing = np.zeros((len(sample), 0), np.float32)
            self._reservoirs[sample.kind].add(sample, nothing)
            layers = self._reservoirs[Kind.PROMPT].layers
            if self._recent.width != len(layers) * PROJECTION_COMPONENTS:
                self._recent = RecentRequests(_RECENT, len(layers) * PROJECTION_COMPONENTS)
            self._recent.put(sample.seed, aligned_projection(sample, layers))
        else:
            self._reservoirs[sample.kind].add(sample, self._recent.get(sample.seed))

    def progress(self) -> Progress:
        """How far the collection is."""
        first, last = self._span
        counts = Counts(
            max(self._requests.values()),
            max(reservoir.units() for reservoir in self._reservoirs.values()),
            max(0, last - first) / 3.6e12,
        )
        limits = self._limits
        if counts.clusters < limits.provisional_clusters:
            reached = None
        elif counts.clusters < limits.frozen_clusters or counts.hours < limits.frozen_hours:
            reached = State.PROVISIONAL
        else:
            reached = State.FROZEN
        return Progress(counts, limits, reached)

    def lacking(self) -> tuple[str, ...]:
        """What a frozen reference still lacks in amount, in words; empty if it has enough. Cheap."""
        counts, limits = self.progress().counts, self._limits
        found = []
        if counts.clusters < limits.frozen_clusters:
            found.append(f"{counts.clusters} of {limits.frozen_clusters} clusters")
        if counts.hours < limits.frozen_hours:
            found.append(f"{counts.hours:.1f} of {limits.frozen_hours:g} hours")
        return tuple(found)

    def objections(self, canaries: str) -> tuple[str, ...]:
        """Why what was collected must not be frozen, in words; empty if it may be. canaries: see `doubts`."""
        return (*self.lacking(), *self.doubts(canaries))

    def doubts(self, canaries: str) -> tuple[str, ...]:
        """What speaks against what was collected, however much it is, in words.

        canaries: what they say against it, "" for nothing. The halves are compared, in 0.1 s or more, when a twentieth
        more requests have come than at the last time.
        """
        found = [canaries] if canaries else []
        if sum(self._requests.values()) >= _COMPARED_AGAIN * self._compared_requests:
            self._compared_requests = sum(self._requests.values())
            self._differing = differing_halves(self._gathered().values(), MOST_ROWS, self._seed)
        if differing := self._differing:
            named = ", ".join(
                f"{item.kind} {item.feature.signal}"
                + (f" of layer {item.feature.layer}" if item.feature.layer >= 0 else "")
                for item in differing[:_NAMED]
            )
            found.append(f"the later half differs from the earlier one in {len(differing)} features: {named}")
        return tuple(found)

    def despite(self, canaries: str, *, force: bool) -> tuple[str, ...]:
        """What speaks against it, where it is frozen all the same. Raises ValueError with it, unless it is forced."""
        found = self.doubts(canaries)
        if found and not force:
            raise ValueError(
                f"{'; '.join(found)}: find out why first, or force it (--force), which the reference then says"
            )
        return found

    def reference(self, state: State, created_unix_seconds: int) -> Reference:
        """The reference of what was collected so far. Raises ValueError while there is nothing."""
        counts = self.progress().counts
        if not counts.clusters:
            raise ValueError(f"no traffic of {self.identity.model} was collected: a reference needs some")
        return fit_reference(self.identity, state, counts, created_unix_seconds, self._gathered(), self._seed)

    def snapshot(self) -> bytes:
        """The whole state."""
        gathered = self._gathered()
        arrays = {
            f"{kind}_{field.name}": getattr(part.rows, field.name)
            for kind, part in gathered.items()
            for field in fields(Rows)
        }
        header = {
            "names": {kind: part.names for kind, part in gathered.items()},
            "layers": {kind: part.layers for kind, part in gathered.items()},
            "requests": self._requests,
            "span": self._span,
        }
        return checkpoint.dump(_WHAT, _VERSION, header, {**arrays, **self._recent.arrays()})

    def restore(self, data: bytes) -> None:
        """Puts a snapshot's state in place of this one. Raises ValueError for one that it cannot read."""
        header, arrays = checkpoint.load(_WHAT, _VERSION, data)
        for kind, reservoir in self._reservoirs.items():
            names = tuple(Feature(*name) for name in header["names"][kind])
            rows = Rows(*(arrays[f"{kind}_{field.name}"] for field in fields(Rows)))
            reservoir.restore(Gathered(kind, names, tuple(header["layers"][kind]), rows))
            self._requests[kind] = header["requests"][kind]
        self._span = (header["span"][0], header["span"][1])
        self._differing, self._compared_requests = (), 0
        self._recent.restore(arrays)

    def _gathered(self) -> Mapping[Kind, Gathered]:
        return {kind: reservoir.gathered() for kind, reservoir in self._reservoirs.items()}

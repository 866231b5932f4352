"""What healthy traffic of one model looks like: the values that detectors compare requests with."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.reference.classes import Classes
from introspan_collector.detect.reference.space import Space
from introspan_collector.detect.sample import Feature
from introspan_collector.model import Origin
from introspan_wire.signals import Kind

CHANCE = 0.01
"""δ: of all references that could have been drawn, how many may give a bound that is too low anywhere."""


_PARTS = {"bank": 0.5, "extremes": 0.2, "drift": 0.1, "classes": 0.1, "repetition": 0.1}
"""Of δ: a detector with few bounds would gain nothing by sharing alike with the thousands of the bank's."""


class State(StrEnum):
    """How far a reference may be relied on: a provisional one raises tickets only."""

    PROVISIONAL = "provisional"
    FROZEN = "frozen"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a reference is of."""

    model: str
    fingerprint: str
    engine: str
    engine_version: str
    dtype: str
    adapter: str
    layer_count: int

    @classmethod
    def of(cls, origin: Origin, adapter: str) -> "Identity":
        """That of an adapter ("" for none) of the model that a worker serves."""
        return cls(
            origin.model,
            origin.fingerprint,
            origin.engine,
            origin.engine_version,
            origin.dtype,
            adapter,
            origin.layer_count,
        )

    def differences(self, other: "Identity") -> tuple[str, ...]:
        """One sentence for each field in which they differ."""
        return tuple(
            f"{field.name} is {getattr(self, field.name)!r}, not {getattr(other, field.name)!r}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        )


@dataclass(frozen=True, slots=True)
class Counts:
    """Traffic behind a reference; clusters are counted once in each window of ten seconds."""

    requests: int
    clusters: int
    hours: float


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """N₀ healthy requests, one of each cluster and window, and what is fitted to them, for one kind of row.

    features: float32 [N₀, F]; projection: float32 [N₀, P] at projection_layers, 32 components each; length_bin:
    ⌊log₂ tokens⌋; class_id: that of the request's prompt, NO_CLASS where unknown; fit: which half a request is in.
    cells: int16 [C + 1, 32], the cell of a class and length bin (last row: no class). centre and spread: float32
    [cells, F] of the half that is fitted, NaN where a feature does not vary; tails: float32 [2, F, 4], see scores.py;
    scores: float32 [n], sorted, of requests that were not fitted; distances: float32 [n], sorted, theirs from their
    class, empty but for prompts.
    """

    names: tuple[Feature, ...]
    projection_layers: tuple[int, ...]
    features: NDArray[np.float32]
    projection: NDArray[np.float32]
    length_bin: NDArray[np.int8]
    class_id: NDArray[np.int16]
    cluster: NDArray[np.uint64]
    fit: NDArray[np.bool_]
    outside: NDArray[np.bool_]
    space: Space
    cells: NDArray[np.int16]
    centre: NDArray[np.float32]
    spread: NDArray[np.float32]
    tails: NDArray[np.float32]
    scores: NDArray[np.float32]
    distances: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.features)

    @property
    def cell_count(self) -> int:
        """Number of cells."""
        return int(self.cells.max()) + 1


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Healthy traffic of one identity, for each kind of row of which there was any.

    despite: what spoke against it when people froze it all the same, in words.
    """

    identity: Identity
    state: State
    counts: Counts
    created_unix_seconds: int
    classes: Classes
    populations: Mapping[Kind, Population]
    despite: tuple[str, ...] = ()

    @property
    def chance(self) -> float:
        """How often one of the bank's bounds may be wrong; it has one for each side of a feature in each cell."""
        return self.chance_of("bank", sum(4 * len(p.names) * p.cell_count for p in self.populations.values()))

    def chance_of(self, detector: str, bounds: int) -> float:
        """How often one of so many bounds of a detector may be wrong, so that all of all detectors hold but for δ."""
        return CHANCE * _PARTS[detector] / max(bounds, 1)

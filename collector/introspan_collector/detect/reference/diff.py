"""Two references in, what differs between them out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.reference.alignment import aligned
from introspan_collector.detect.reference.classes import NO_CLASS
from introspan_collector.detect.reference.distance import cdf_distance
from introspan_collector.detect.reference.reference import Population, Reference
from introspan_collector.detect.sample import Feature
from introspan_wire.signals import Kind


@dataclass(frozen=True, slots=True)
class FeatureDifference:
    """Largest distance between the distributions of a feature in two references, and its medians in both."""

    kind: Kind
    feature: Feature
    distance: float
    chance: float
    first_median: float
    second_median: float


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceDifference:
    """How a second reference differs from a first.

    identity: a sentence for each field; features: the largest distance first; only_first and only_second: features
    that the other lacks; class_shares: float64 [C, 2], requests of both by the classes of the first, None where
    they do not project alike.
    """

    identity: tuple[str, ...]
    features: tuple[FeatureDifference, ...]
    only_first: tuple[tuple[Kind, Feature], ...]
    only_second: tuple[tuple[Kind, Feature], ...]
    class_shares: NDArray[np.float64] | None


def difference(first: Reference, second: Reference) -> ReferenceDifference:
    """What differs; all cells and classes taken together."""
    listed = [(kind, name) for kind, part in first.populations.items() for name in part.names]
    others = [(kind, name) for kind, part in second.populations.items() for name in part.names]
    found = [
        item
        for kind in sorted(first.populations.keys() & second.populations.keys())
        for item in _features(kind, first.populations[kind], second.populations[kind])
    ]
    return ReferenceDifference(
        first.identity.differences(second.identity),
        tuple(sorted(found, key=lambda item: -item.distance)),
        tuple(item for item in listed if item not in set(others)),
        tuple(item for item in others if item not in set(listed)),
        _class_shares(first, second),
    )


def _features(kind: Kind, first: Population, second: Population) -> list[FeatureDifference]:
    shared = tuple(name for name in first.names if name in set(second.names))
    ours = aligned(first.features, first.names, shared)
    theirs = aligned(second.features, second.names, shared)
    distance, chance = cdf_distance(ours, theirs)
    return [
        FeatureDifference(
            kind,
            name,
            float(distance[i]),
            float(chance[i]),
            float(np.nanmedian(ours[:, i])),
            float(np.nanmedian(theirs[:, i])),
        )
        for i, name in enumerate(shared)
        if not np.isnan(distance[i])
    ]


def _class_shares(first: Reference, second: Reference) -> NDArray[np.float64] | None:
    ours, theirs = first.populations.get(Kind.PROMPT), second.populations.get(Kind.PROMPT)
    if ours is None or theirs is None or ours.projection_layers != theirs.projection_layers:
        return None
    shares = [_shares(first, part) for part in (ours, theirs)]
    return np.stack(shares, axis=1)


def _shares(reference: Reference, population: Population) -> NDArray[np.float64]:
    class_id, _ = reference.classes.nearest(population.projection)
    known = class_id[class_id != NO_CLASS]
    counts = np.bincount(known, minlength=len(reference.classes))
    return np.asarray(counts / max(1, len(known)))

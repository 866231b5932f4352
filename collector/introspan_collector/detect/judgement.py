"""Segments of requests and a reference in; how unusual each is among healthy ones, and by what, out."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.reference.alignment import aligned
from introspan_collector.detect.reference.classes import NO_CLASS
from introspan_collector.detect.reference.placement import Placement, Placer
from introspan_collector.detect.reference.reference import Population, Reference
from introspan_collector.detect.reference.scores import Scale, largest
from introspan_collector.detect.sample import Sample, samples
from introspan_wire.codec import SegmentTable
from introspan_wire.signals import Kind

_MOST_DEVIATIONS = 8

# Any throughout: JSON.


def judged(reference: Reference, tables: Iterable[SegmentTable]) -> list[dict[str, Any]]:
    """What the detector of extremes makes of each row that it looks at: a request's prompt, and one decoded segment.

    rank: share of healthy requests that are at least as unusual, never below 1 / (their number + 1).
    """
    adapter = reference.identity.adapter
    found = [one for table in tables for name, one in samples(table) if name == adapter]
    placer = Placer(reference)
    # A request's prompt row says which class its decoded rows belong to.
    return [
        judgement
        for sample in sorted(found, key=lambda one: one.kind is not Kind.PROMPT)
        if sample.kind in reference.populations
        for judgement in _of_sample(reference.populations[sample.kind], sample, placer.place(sample))
    ]


def _of_sample(population: Population, sample: Sample, placement: Placement) -> list[dict[str, Any]]:
    features = aligned(sample.features, sample.names, population.names)
    centre, spread = population.centre[placement.cell], population.spread[placement.cell]
    score, place = largest(features, Scale(centre, spread, population.tails))
    healthy = population.scores
    beyond = len(healthy) - np.searchsorted(healthy, score)
    z = (features - centre) / spread
    return [
        {
            "request_id": sample.request_id[row],
            "kind": sample.kind.value,
            "score": float(score[row]),
            "rank": float((beyond[row] + 1) / (len(healthy) + 1)) if np.isfinite(score[row]) else None,
            "compared_with": len(healthy),
            "by": population.names[place[row]]._asdict(),
            "class": None if placement.class_id[row] == NO_CLASS else int(placement.class_id[row]),
            "outside_classes": bool(placement.outside[row]),
            "deviations": _deviations(population, features[row], centre[row], spread[row], z[row]),
        }
        for row in range(len(sample))
    ]


def _deviations(population: Population, *of_row: NDArray[np.float32]) -> list[dict[str, Any]]:
    """The features that are furthest from the middle of the request's own cell; of_row: [4, F], z last."""
    size = np.where(np.isfinite(of_row[-1]), np.abs(of_row[-1]), -1.0)
    furthest = [i for i in np.argsort(-size)[:_MOST_DEVIATIONS].tolist() if size[i] >= 0]
    names = ("value", "middle", "spread", "z")
    return [
        {
            **population.names[i]._asdict(),
            **{name: float(values[i]) for name, values in zip(names, of_row, strict=True)},
        }
        for i in furthest
    ]

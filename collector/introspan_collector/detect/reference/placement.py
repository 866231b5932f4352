"""Requests in, the input class and the cell that each belongs to out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect import checkpoint
from introspan_collector.detect.reference.alignment import aligned_projection
from introspan_collector.detect.reference.cells import length_bin
from introspan_collector.detect.reference.classes import NO_CLASS
from introspan_collector.detect.reference.recent import RecentRequests
from introspan_collector.detect.reference.reference import Reference
from introspan_collector.detect.sample import Sample
from introspan_wire.signals import Kind

_REMEMBERED = 1 << 14
_WHAT = "the placer"
_VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Where n requests of one kind belong.

    class_id: int16 [n], NO_CLASS where the prompt is not known; outside: bool [n], the prompt is far from all
    classes (False where not known); cell: intp [n], row of Population.centre and the like. distance: float64 [n] of
    a prompt from its class; NaN for other rows.
    """

    class_id: NDArray[np.int16]
    outside: NDArray[np.bool_]
    cell: NDArray[np.intp]
    distance: NDArray[np.float64]


class Placer:
    """Places requests by the classes of one reference; a decoded row has the class of its request's prompt row.

    The prompt row comes first and is remembered for 16,384 requests. A decoded row whose prompt is not known has no
    class, and is compared with the decoded rows of all classes: its own nearest class would be chosen in another
    way than in the reference, and what is compared inside a class must have been put there in the same way.
    """

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._recent = RecentRequests(_REMEMBERED, 2)

    def place(self, sample: Sample) -> Placement:
        """Places requests of a kind that the reference has; prompts are remembered."""
        population = self._reference.populations[sample.kind]
        if sample.kind is Kind.PROMPT:
            class_id, distance = self._reference.classes.nearest(
                aligned_projection(sample, population.projection_layers)
            )
            outside = distance > self._reference.classes.limit
            known = class_id != NO_CLASS
            values = np.stack([class_id[known], outside[known]], axis=1).astype(np.float32)
            self._recent.put(sample.seed[known], values)
        else:
            distance = np.full(len(sample), np.nan)
            remembered = self._recent.get(sample.seed)
            known = ~np.isnan(remembered[:, 0])
            class_id = np.where(known, remembered[:, 0], NO_CLASS).astype(np.int16)
            outside = remembered[:, 1] > 0
        cell = population.cells[class_id, length_bin(sample.length)].astype(np.intp)
        return Placement(class_id, outside, cell, distance)

    def snapshot(self) -> bytes:
        """The prompts remembered."""
        return checkpoint.dump(_WHAT, _VERSION, {}, self._recent.arrays())

    def restore(self, data: bytes) -> None:
        """Puts a snapshot's memory in place of this one. Raises ValueError for one that it cannot read."""
        _, arrays = checkpoint.load(_WHAT, _VERSION, data)
        self._recent.restore(arrays)

"""Rows of healthy traffic in, the features whose later half differs from the earlier one out.

The classes and cells are those of the earlier half alone, and later requests go to the nearest: so other proportions
of the same traffic (day and night) are no difference, while what only the later half has lies wrongly in some cell.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.reference.cells import fit_cells, length_bin
from introspan_collector.detect.reference.classes import Classes, fit_classes, no_classes
from introspan_collector.detect.reference.distance import cdf_distance
from introspan_collector.detect.reference.reservoir import Gathered
from introspan_collector.detect.sample import Feature
from introspan_wire.signals import PROJECTION_COMPONENTS, Kind

_PROJECTION = "residual.projection"
_FEWEST_ROWS = 100  # small classes must stay apart: joined, their changing proportions look like a change

LEVEL = 0.01
"""How often halves of traffic that does not change are told apart, over all kinds, cells and features together."""


class Difference(NamedTuple):
    """A feature, or the projection at a layer, that differs between the halves.

    distance: the largest between its distributions in a cell.
    """

    kind: Kind
    feature: Feature
    distance: float


def differing_halves(parts: Iterable[Gathered], most_rows: int, seed: int = 0) -> tuple[Difference, ...]:
    """Features whose distributions differ between the halves of the time, the largest distance first.

    In each cell and for each feature a two-sample Kolmogorov–Smirnov test, one request a unit, level LEVEL shared
    out over all of them (Bonferroni). Empty: the halves are silent against each other.
    """
    ordered = sorted((_cut(part, most_rows) for part in parts if len(part.rows)), key=lambda part: part.kind)
    prompts = [part for part in ordered if part.kind is Kind.PROMPT]
    classes = no_classes()
    if prompts:
        rows = prompts[0].rows
        early = _early(rows.time_unix_nano)
        classes = fit_classes(prompts[0].prompt[early], rows.fit[early], seed)
    found = [pair for part in ordered for pair in _compared(part, classes)]
    tests = sum(int(np.count_nonzero(~np.isnan(chance))) for _, _, _, chance in found)
    worst: dict[tuple[Kind, Feature], float] = {}
    for kind, names, distance, chance in found:
        for i in np.flatnonzero(chance < LEVEL / max(tests, 1)).tolist():
            worst[kind, names[i]] = max(worst.get((kind, names[i]), 0.0), float(distance[i]))
    listed = (Difference(kind, feature, distance) for (kind, feature), distance in worst.items())
    return tuple(sorted(listed, key=lambda difference: -difference.distance))


def _compared(
    part: Gathered, classes: Classes
) -> Iterator[tuple[Kind, tuple[Feature, ...], NDArray[np.float64], NDArray[np.float64]]]:
    early = _early(part.rows.time_unix_nano)
    class_id, _ = classes.nearest(part.prompt)
    bins = length_bin(part.rows.length)
    cells = fit_cells(class_id[early], bins[early], classes, _FEWEST_ROWS)
    cell = cells[class_id, bins]
    values = np.concatenate([part.rows.features, part.rows.projection], axis=1)
    projected = [Feature(_PROJECTION, layer) for layer in part.layers for _ in range(PROJECTION_COMPONENTS)]
    for i in np.unique(cell[early]).tolist():
        inside = cell == i
        distance, chance = cdf_distance(values[early & inside], values[~early & inside])
        yield part.kind, (*part.names, *projected), distance, chance


def _early(time_unix_nano: NDArray[np.uint64]) -> NDArray[np.bool_]:
    return np.asarray(time_unix_nano <= np.sort(time_unix_nano)[(len(time_unix_nano) - 1) // 2])


def _cut(part: Gathered, most_rows: int) -> Gathered:
    return Gathered(part.kind, part.names, part.layers, part.rows.take(slice(most_rows)))

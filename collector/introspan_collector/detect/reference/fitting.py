"""Rows of healthy traffic in, the reference that they make out."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect.reference.cells import fewest_rows, fit_cells, length_bin, members
from introspan_collector.detect.reference.classes import Classes, fit_classes, no_classes
from introspan_collector.detect.reference.reference import Counts, Identity, Population, Reference, State
from introspan_collector.detect.reference.reservoir import Gathered
from introspan_collector.detect.reference.scores import Scale, fit_spread, fit_tails, largest
from introspan_collector.detect.reference.space import fit_space
from introspan_wire.signals import Kind

MOST_ROWS = 4096
MOST_SCORES = 20_000
_MOST_BYTES = 4_300_000
_FLOAT_BYTES = 4


def fit_reference(
    identity: Identity,
    state: State,
    counts: Counts,
    created_unix_seconds: int,
    gathered: Mapping[Kind, Gathered],
    seed: int = 0,
) -> Reference:
    """A reference from the rows of each kind. Any number of rows will do; few make one cell and wide bounds.

    At most 4,096 rows of a kind are kept, fewer where their columns would not fit into a file of 5 MB.
    """
    parts = {kind: part for kind, part in gathered.items() if len(part.rows)}
    width = sum(part.rows.features.shape[1] + part.rows.projection.shape[1] for part in parts.values())
    kept = min(MOST_ROWS, _MOST_BYTES // (_FLOAT_BYTES * max(width, 1)))
    prompts = {kind: part.prompt for kind, part in parts.items()}
    if Kind.PROMPT in parts:
        classes = fit_classes(prompts[Kind.PROMPT][:kept], parts[Kind.PROMPT].rows.fit[:kept], seed)
    else:
        classes = no_classes()
    populations = {
        kind: _population(part, prompts[kind], classes, kept) for kind, part in sorted(parts.items())
    }
    return Reference(identity, state, counts, created_unix_seconds, classes, populations)


def _population(part: Gathered, prompt: NDArray[np.float32], classes: Classes, kept: int) -> Population:
    class_id, distance = classes.nearest(prompt)
    bins = length_bin(part.rows.length)
    fit = part.rows.fit
    if not fit[:kept].any():
        fit = np.ones(len(fit), np.bool_)  # one or two rows: something has to be fitted
    rows = part.rows.take(slice(kept))
    cells = fit_cells(class_id[:kept], bins[:kept], classes, fewest_rows(len(rows)))
    fitted = np.flatnonzero(fit[:kept])
    row, cell = members(cells, class_id[fitted], bins[fitted])
    spreads = [fit_spread(rows.features[fitted[row[cell == i]]]) for i in range(int(cells.max()) + 1)]
    centre, spread = (np.stack(column) for column in zip(*spreads, strict=True))
    # Members of two cells, their class's and that of all classes, stand for each here as well.
    tails = fit_tails(rows.features[fitted[row]], centre[cell], spread[cell])
    # Every row that was not fitted, also those beyond the ones kept: extremes need many.
    others = np.ones(len(fit), np.bool_)
    others[fitted] = False
    calibrated = np.flatnonzero(others)[:MOST_SCORES]
    own = cells[class_id[calibrated], bins[calibrated]]
    found, _ = largest(part.rows.features[calibrated], Scale(centre[own], spread[own], tails))
    far = distance[calibrated if part.kind is Kind.PROMPT else slice(0)].astype(np.float32)
    return Population(
        part.names,
        part.layers,
        rows.features,
        rows.projection,
        bins[:kept],
        class_id[:kept],
        rows.cluster,
        fit[:kept],
        distance[:kept] > classes.limit,
        fit_space(rows.projection[fitted]),
        cells,
        centre,
        spread,
        tails,
        np.sort(found[~np.isnan(found)]),
        np.sort(far[~np.isnan(far)]),
    )

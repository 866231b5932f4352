"""A schema in, the order and groups of the columns that are aggregated out."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from introspan_wire.codec import SCHEMAS_KEPT, Column, Schema
from introspan_wire.signals import CATALOGUE, Axis, Statistic


@dataclass(frozen=True, slots=True)
class SignalSpan:
    """Where one signal lies in the ordered columns and in the groups. Ends are exclusive."""

    signal: str
    first_column: int
    end_column: int
    first_group: int
    end_group: int


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Columns in the order of (signal, layer), the groups they form, and where each group starts.

    order: indices of the columns that are aggregated; groups: (signal, layer) of each group of neighbours.
    """

    order: NDArray[np.intp]
    groups: tuple[tuple[str, int], ...]
    column_starts: NDArray[np.intp]
    spans: tuple[SignalSpan, ...]


def is_aggregated(name: str) -> bool:
    """Whether a signal has gauges and histograms.

    A component of a random projection means nothing by itself, and a mean over components less: projections
    are input to drift detection, which reads them from the log.
    """
    return name in CATALOGUE and Axis.COMPONENT not in CATALOGUE[name].axes


def is_counted(name: str) -> bool:
    """Whether a signal also has a counter of events: its decoded statistic is a sum, or it is a repetition."""
    return name == "output.repetition" or CATALOGUE[name].decoded == (Statistic.SUM,)


@lru_cache(maxsize=SCHEMAS_KEPT)
def layout(schema: Schema) -> Layout:
    """The layout of a schema; the same object for equal schemas."""
    chosen = sorted(
        (i for i, column in enumerate(schema.columns) if _is_chosen(schema, column)),
        key=lambda i: (schema.columns[i].signal, schema.columns[i].layer),
    )
    groups: list[tuple[str, int]] = []
    starts: list[int] = []
    spans: list[SignalSpan] = []
    for signal, members in groupby(enumerate(chosen), key=lambda item: schema.columns[item[1]].signal):
        first_group = len(groups)
        positions = [position for position, _ in members]
        for position in positions:
            key = (signal, schema.columns[chosen[position]].layer)
            if len(groups) == first_group or groups[-1] != key:
                groups.append(key)
                starts.append(position)
        spans.append(SignalSpan(signal, positions[0], positions[-1] + 1, first_group, len(groups)))
    return Layout(np.array(chosen, np.intp), tuple(groups), np.array(starts, np.intp), tuple(spans))


def _is_chosen(schema: Schema, column: Column) -> bool:
    if not is_aggregated(column.signal):
        return False
    # A signal that reports several statistics is aggregated by its first: sampler.pit is uniform as a sample
    # of one token, but not as a mean.
    return column.statistic in CATALOGUE[column.signal].statistics(schema.kind)[:1]

"""The columns of a segment in; those of them that one request may hold out."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from introspan_wire.codec import NO_AXIS, Schema
from introspan_wire.limits import COLUMNS


@lru_cache(maxsize=64)
def carried(schema: Schema) -> tuple[Schema, NDArray[np.intp] | slice]:
    """A schema of at most COLUMNS columns, and where they stand in the one given.

    The last columns that are one a head are left out first: there are a hundred for each of another kind.
    """
    columns = schema.columns
    if len(columns) <= COLUMNS:
        return schema, slice(None)
    wanted = sorted(range(len(columns)), key=lambda place: columns[place].head != NO_AXIS)
    kept = sorted(wanted[:COLUMNS])
    return Schema(schema.kind, tuple(columns[place] for place in kept)), np.array(kept, np.intp)

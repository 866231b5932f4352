"""Segments as several workers of an engine sent them in, each segment once, with what all measured of it, out.

Workers that hold parts of one model send columns of their own for the same segments of the same requests: other layers,
other heads. Everything that looks at a request as a whole puts them side by side here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np

from introspan_collector.view import Stored
from introspan_wire.codec import SCHEMAS_KEPT, Schema, SegmentTable

Piece = tuple[SegmentTable, int]
"""A row of a table."""

_Key = tuple[str, str, str, int, int]
_LARGEST = ("token_count", "measured_count")


def key_of(table: SegmentTable, row: int) -> _Key:
    """What is the same in every worker's rows of one segment.

    Not how many tokens it has: where one worker learns later than another that a request has ended, or closes a
    segment at what only it sees, it may have fewer.
    """
    return (
        table.request_id[row],
        table.adapter[row],
        table.schema.kind.value,
        int(table.segment_index[row]),
        int(table.token_start[row]),
    )


def joined(found: Sequence[Stored], *, newest_first: bool = False) -> list[Stored]:
    """The rows found, those of one segment that have different columns as one, in the order of their first ones.

    newest_first: of the rows found, too, which inside a table are the oldest first.
    """
    segments: dict[tuple[object, ...], list[_Segment]] = {}
    count = 0
    for stored in found:
        rows = range(len(stored.table))
        for row in reversed(rows) if newest_first else rows:
            count += 1
            key = (stored.model, stored.replica, *key_of(stored.table, row))
            # Of ids that clients use again there are several segments.
            alike = segments.setdefault(key, [])
            other = next((one for one in alike if one.lacks(stored.table.schema)), None)
            if other is None:
                alike.append(_Segment(stored, count, [(stored.table, row)]))
            else:
                other.pieces.append((stored.table, row))
    ordered = sorted((one for alike in segments.values() for one in alike), key=lambda one: one.place)
    if len(ordered) == count:
        return list(found)
    runs = groupby(ordered, key=lambda one: (one.first.model, one.first.replica, one.schemas))
    return [
        Stored(model, replica, table)
        for (model, replica, _), run in runs
        for table in assembled([one.pieces for one in run][:: -1 if newest_first else 1])
    ]


@dataclass(slots=True)
class _Segment:
    """What was found of a segment; place: of its first row among all."""

    first: Stored
    place: int
    pieces: list[Piece]

    @property
    def schemas(self) -> tuple[Schema, ...]:
        return tuple(table.schema for table, _ in self.pieces)

    def lacks(self, schema: Schema) -> bool:
        return not any(_overlap(schema, table.schema) for table, _ in self.pieces)


def assembled(segments: Sequence[Sequence[Piece]]) -> Iterator[SegmentTable]:
    """Tables of so many segments, each of its pieces: columns side by side, the rest as in the first piece.

    Counts are the largest.
    """
    by_schemas: dict[tuple[Schema, ...], list[Sequence[Piece]]] = {}
    for pieces in segments:
        by_schemas.setdefault(tuple(table.schema for table, _ in pieces), []).append(pieces)
    for schemas, members in by_schemas.items():
        first = [pieces[0] for pieces in members]
        values = [np.concatenate([table.values[row] for table, row in pieces]) for pieces in members]
        # Any: arrays of several types, and names.
        columns: dict[str, Any] = {
            field.name: _gathered(field.name, first)
            for field in fields(SegmentTable)
            if field.name not in ("schema", "values", *_LARGEST)
        }
        for name in _LARGEST:
            counts = [max(getattr(table, name)[row] for table, row in pieces) for pieces in members]
            columns[name] = np.array(counts, np.uint32)
        yield SegmentTable(schema=_side_by_side(schemas), values=np.stack(values), **columns)


# Any: as above.
def _gathered(name: str, pieces: Sequence[Piece]) -> Any:
    found = [getattr(table, name)[row] for table, row in pieces]
    return np.stack(found) if isinstance(getattr(pieces[0][0], name), np.ndarray) else found


@lru_cache(maxsize=SCHEMAS_KEPT)
def _overlap(one: Schema, other: Schema) -> bool:
    return not set(one.columns).isdisjoint(other.columns)


@lru_cache(maxsize=SCHEMAS_KEPT)
def _side_by_side(schemas: tuple[Schema, ...]) -> Schema:
    if len(schemas) == 1:
        return schemas[0]
    return Schema(schemas[0].kind, tuple(column for schema in schemas for column in schema.columns))

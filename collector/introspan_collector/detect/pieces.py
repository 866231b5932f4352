"""Rows of tables of several workers in, a JSON header and arrays out — and back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from introspan_collector.joined import Piece
from introspan_collector.model import Origin
from introspan_wire.codec import Column, Schema, SegmentTable
from introspan_wire.signals import Kind, Statistic

# Any throughout: what JSON can hold, and arrays of any type.
Arrays = dict[str, NDArray[Any]]
_TEXTS = ("request_id", "adapter")
_ARRAYS = tuple(field.name for field in fields(SegmentTable) if field.name not in (*_TEXTS, "schema"))


def dump_pieces(parts: Mapping[int, Sequence[tuple[Origin, Piece]]], arrays: Arrays) -> list[dict[str, Any]]:
    """The header of rows by number; those of one worker and schema lie in the same arrays."""
    groups: dict[tuple[Origin, Schema], list[tuple[int, Piece]]] = {}
    for number, pieces in parts.items():
        for origin, piece in sorted(pieces, key=lambda one: one[0].part):
            groups.setdefault((origin, piece[0].schema), []).append((number, piece))
    header = []
    for i, ((origin, schema), members) in enumerate(groups.items()):
        rows = [piece for _, piece in members]
        for name in _ARRAYS:
            arrays[f"{i}_{name}"] = np.stack([getattr(table, name)[row] for table, row in rows])
        header.append(
            {
                "origin": asdict(origin),
                "kind": schema.kind.value,
                "columns": schema.columns,
                "numbers": [number for number, _ in members],
                **{name: [getattr(table, name)[row] for table, row in rows] for name in _TEXTS},
            }
        )
    return header


def load_pieces(header: Sequence[Mapping[str, Any]], arrays: Arrays) -> Iterator[tuple[int, Origin, Piece]]:
    """The rows of a header and arrays, each with its number."""
    for i, one in enumerate(header):
        attributes = tuple((key, value) for key, value in one["origin"]["attributes"])
        origin = Origin(**one["origin"] | {"attributes": attributes})
        columns = tuple(
            Column(signal, Statistic(statistic), *axes) for signal, statistic, *axes in one["columns"]
        )
        given: dict[str, Any] = {name: one[name] for name in _TEXTS}
        given |= {name: arrays[f"{i}_{name}"] for name in _ARRAYS}
        table = SegmentTable(Schema(Kind(one["kind"]), columns), **given)
        for row, number in enumerate(one["numbers"]):
            yield number, origin, (table, row)

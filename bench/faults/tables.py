"""Tables of segments in, a compressed file out, and back."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from introspan_wire.codec import Column, Schema, SegmentTable
from introspan_wire.signals import CATALOGUE, Kind, Statistic

_NAMES = ("request_id", "adapter")
_ONE_TOKEN = next(one for one in CATALOGUE["sampler.pit"].decoded if one is not Statistic.MEAN)
_ARRAYS = tuple(field.name for field in fields(SegmentTable) if field.name not in (*_NAMES, "schema"))


def save(path: Path, tables: list[SegmentTable], extra: dict[str, np.ndarray[Any, Any]]) -> None:
    """Writes tables, one of a kind each, and arrays beside them; the file is there when it is whole."""
    # Any: arrays of several types.
    arrays: dict[str, Any] = {f"extra_{name}": array for name, array in extra.items()}
    schemas = {}
    for table in tables:
        kind = table.schema.kind.value
        schemas[kind] = [list(column) for column in table.schema.columns]
        arrays |= {f"{kind}_{name}": getattr(table, name) for name in _ARRAYS}
        arrays |= {f"{kind}_{name}": np.array(getattr(table, name)) for name in _NAMES}
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, schemas=np.array(json.dumps(schemas)), **arrays)
    partial.rename(path)


def load(path: Path) -> tuple[dict[Kind, SegmentTable], dict[str, np.ndarray[Any, Any]]]:
    """The tables of a file by kind, and the arrays beside them."""
    with np.load(path) as stored:
        arrays = dict(stored)
    found = {}
    for kind, columns in json.loads(str(arrays["schemas"])).items():
        schema = Schema(Kind(kind), tuple(_column(*column) for column in columns))
        given: dict[str, Any] = {name: arrays[f"{kind}_{name}"] for name in _ARRAYS}
        given |= {name: arrays[f"{kind}_{name}"].tolist() for name in _NAMES}
        found[Kind(kind)] = SegmentTable(schema, **given)
    return found, {n.removeprefix("extra_"): a for n, a in arrays.items() if n.startswith("extra_")}


def _column(signal: str, statistic: str, *axes: int) -> Column:
    # Sets that were measured while a segment kept any one token's U, not its first: both are of one token.
    is_former = signal == "sampler.pit" and statistic == Statistic.SAMPLE
    return Column(signal, _ONE_TOKEN if is_former else Statistic(statistic), *axes)

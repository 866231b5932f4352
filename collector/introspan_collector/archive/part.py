"""Batches in, one Parquet file of their segments out."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
from numpy.typing import NDArray

from introspan_collector.archive.schemas import quoted
from introspan_collector.model import Batch
from introspan_collector.sums import by_column
from introspan_wire.codec import Schema, SegmentTable

# zstd's fastest level writes three quarters of what Snappy writes; version 2 splits floats by byte, which is where the
# rest of the saving comes from (docs/adr/0005-parquet-parts.md).
# Small row groups: DuckDB holds one in memory.
_FORMAT = "FORMAT parquet, PARQUET_VERSION v2, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE 4096"

_COUNTS = ("segment_index", "token_start", "token_count", "measured_count", "prompt_tokens", "cached_tokens")
_IDENTITY = (
    "log_offset", "received_unix_nano", "time_unix_nano", "model", "replica", "adapter", "fingerprint", "request_id",
    "trace_id", "span_id", "cluster_key", "kind", *_COUNTS, "sampling_probability", "schema_id",
)  # fmt: skip
_OPTIONAL = ("trace_id", "span_id")


class Segments(NamedTuple):
    """A table of the batch it came in."""

    batch: Batch
    table: SegmentTable


def write_part(
    connection: duckdb.DuckDBPyConnection,
    segments: Sequence[Segments],
    schema_ids: dict[Schema, str],
    to: Path,
) -> None:
    """Writes segments as rows: identity, schema_id and `values FLOAT[]` in the schema's order, NaN = not measured.

    trace_id and span_id are lower-case hex, NULL where the caller sent none. Raises OSError, duckdb.Error.
    """
    names: list[str] = []
    selects: list[str] = []
    try:
        ordered = sorted(segments, key=lambda item: schema_ids[item.table.schema])
        for schema_name, same in groupby(ordered, key=lambda item: schema_ids[item.table.schema]):
            members = list(same)
            name = f"segments_{len(names)}"
            connection.register(name, _columns(members, schema_name))
            names.append(name)
            selects.append(_select(name, len(members[0].table.schema.columns)))
        connection.execute(f"COPY ({' UNION ALL '.join(selects)}) TO '{quoted(to)}' ({_FORMAT})")
    finally:
        for name in names:
            connection.unregister(name)


def _select(name: str, width: int) -> str:
    values = ", ".join(f"v{i}" for i in range(width))
    # NULL is made here: of a column that holds nothing else DuckDB cannot tell the type, and parts would differ.
    identity = ", ".join(f"nullif({of}, '') AS {of}" if of in _OPTIONAL else of for of in _IDENTITY)
    # A list of scalars is made by DuckDB in vectors; there is no way in for a two-dimensional array.
    return f"SELECT {identity}, [{values}]::FLOAT[] AS values FROM {name}"  # noqa: S608  # constants


# Any: columns are arrays of several types, and DuckDB takes them all.
def _columns(members: Sequence[Segments], schema_name: str) -> dict[str, NDArray[Any]]:
    tables = [item.table for item in members]
    rows = [len(table) for table in tables]

    # Any: as above.
    def repeated(per_batch: list[Any], dtype: Any = object) -> NDArray[Any]:
        return np.repeat(np.array(per_batch, dtype), rows)

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(table, name) for table in tables])

    columns: dict[str, NDArray[Any]] = {
        "log_offset": repeated([item.batch.offset for item in members], np.int64),
        "received_unix_nano": repeated([item.batch.received_unix_nano for item in members], np.int64),
        "time_unix_nano": joined("time_unix_nano").astype(np.int64),
        "model": repeated([item.batch.origin.model for item in members]),
        "replica": repeated([item.batch.origin.replica for item in members]),
        "fingerprint": repeated([item.batch.origin.fingerprint for item in members]),
        "adapter": np.array([name for table in tables for name in table.adapter], object),
        "request_id": np.array([name for table in tables for name in table.request_id], object),
        "trace_id": _hex(joined("trace_id")),
        "span_id": _hex(joined("span_id")),
        "cluster_key": joined("cluster_key"),
        "kind": repeated([table.schema.kind.value for table in tables]),
        "sampling_probability": joined("sampling_probability"),
        "schema_id": np.full(sum(rows), schema_name, object),
    }
    columns |= {name: joined(name) for name in _COUNTS}
    # DuckDB takes neighbouring values of a column.
    values = by_column([table.values for table in tables])
    return columns | {f"v{i}": values[i] for i in range(len(values))}


def _hex(ids: NDArray[np.uint8]) -> NDArray[np.object_]:
    """ids: uint8 [n, width] → hex [n], empty where all zero."""
    text, width = ids.tobytes().hex(), 2 * ids.shape[1]
    names = np.array([text[start : start + width] for start in range(0, len(text), width)], object)
    names[~ids.any(axis=1)] = ""
    return names

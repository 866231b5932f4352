"""A request's id or a model in, its newest segments out: of what is still buffered, and of parts, newest first."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
from numpy.typing import NDArray

from introspan_collector.archive.damage import Damage
from introspan_collector.archive.files import Part, parts
from introspan_collector.archive.observations import REQUEST
from introspan_collector.archive.part import Segments
from introspan_collector.view import Stored
from introspan_wire.codec import Column, Schema, SegmentTable
from introspan_wire.signals import Kind, Statistic

MOST_ROWS = 512
"""Of a request: one of 60,000 tokens has as many, where four workers measure a part of each of its 128 segments."""

_PARTS_LOOKED_AT = 64
_COUNTS = ("segment_index", "token_start", "token_count", "measured_count", "prompt_tokens", "cached_tokens")
_COLUMNS = (
    "log_offset", "model", "replica", "adapter", "request_id", "trace_id", "span_id", "cluster_key", *_COUNTS,
    "time_unix_nano", "sampling_probability", "schema_id", "values",
)  # fmt: skip
_BY_MODEL = """
    model = $model AND (replica = $replica OR $replica IS NULL) AND (adapter = $adapter OR $adapter IS NULL)
    AND (kind = $kind OR $kind IS NULL)
"""


class Filter(NamedTuple):
    """Which segments: of a model, and None = every."""

    model: str
    replica: str | None
    adapter: str | None
    kind: Kind | None


class Lookup:
    """Reads an archive while it is written. buffered: what is in no part yet, in log order."""

    def __init__(
        self, directory: Path, buffered: Callable[[], Sequence[Segments]], damage: Damage | None = None
    ) -> None:
        self._directory = directory
        self._buffered = buffered
        self._damage = Damage() if damage is None else damage

    def request(self, request_id: str, from_hour: str, to_hour: str) -> list[Stored]:
        """Segments of a request, by its client's id, received in hours from … to (inclusive), at most MOST_ROWS.

        Hours are looked at from the last to the first, until one has it; then the one before it as well.
        """
        own = re.compile(f"([0-9]+_)?{re.escape(request_id)}([-_][0-9]+)?")
        # Before the parts are listed: what is written meanwhile is then in both, and taken once.
        waiting = list(self._buffered())
        found = _chosen(
            waiting, lambda item: [own.fullmatch(id_) is not None for id_ in item.table.request_id]
        )
        archived = parts(self._directory / "observations", from_hour)
        by_hour = [list(of) for _, of in groupby(archived, key=lambda part: part.path.parent.name)]
        is_last = bool(found)
        for members in reversed(by_hour):
            if members[0].path.parent.name > f"hour={to_hour}":
                continue
            more = self._read(members, REQUEST, {"request_id": request_id}, _first_offset(waiting))
            found = more + found
            if is_last or sum(len(one.table) for one in found) >= MOST_ROWS:
                break
            is_last = bool(more)
        return found

    def newest(self, wanted: Filter, limit: int) -> list[Stored]:
        """The newest segments, at most about `limit` of them, newest first."""
        waiting = list(self._buffered())
        found = _chosen(waiting, lambda item: _is_wanted(item, wanted))[::-1]
        parameters = wanted._asdict() | {"kind": None if wanted.kind is None else wanted.kind.value}
        archived = parts(self._directory / "observations")[: -_PARTS_LOOKED_AT - 1 : -1]
        for part in archived:
            if sum(len(one.table) for one in found) >= limit:
                break
            found += self._read([part], _BY_MODEL, parameters, _first_offset(waiting), limit)[::-1]
        return _at_most(found, limit)

    # Any: what DuckDB takes.
    def _read(
        self,
        members: Sequence[Part],
        condition: str,
        parameters: dict[str, Any],
        before: int | None,
        limit: int = MOST_ROWS,
    ) -> list[Stored]:
        """Segments of parts that meet a condition, without those from log offset `before` on: they are buffered."""
        select = f"""
            SELECT {", ".join(_COLUMNS)} FROM read_parquet($parts)
            WHERE {condition} AND (log_offset < $before OR $before IS NULL)
            ORDER BY log_offset DESC, segment_index DESC LIMIT $limit
        """  # noqa: S608  # constants

        def rows(paths: list[Path]) -> list[tuple[Any, ...]]:
            if not paths:
                return []
            asked = {**parameters, "parts": [str(path) for path in paths], "before": before, "limit": limit}
            # A connection of its own: a damaged file can make one unusable.
            with duckdb.connect(":memory:", config={"threads": 1}) as connection:
                found: list[tuple[Any, ...]] = connection.execute(select, asked).fetchall()[::-1]
                return found

        found = self._damage.read(lambda: [part.path for part in members if part.path.exists()], rows)
        by_schema = groupby(found, key=lambda row: (row[-2], row[1], row[2]))
        schemas = {schema_id: self._schema(schema_id) for schema_id in {row[-2] for row in found}}
        read = ((schemas[of[0]], list(members)) for of, members in by_schema)
        return [_stored(schema, members) for schema, members in read if schema is not None]

    def _schema(self, schema_id: str) -> Schema | None:
        """None where its file cannot be read; it is written again when its like comes again."""
        path = self._directory / "schemas" / f"{schema_id}.parquet"
        try:
            with duckdb.connect(":memory:", config={"threads": 1}) as connection:
                return _stored_schema(connection, path)
        except duckdb.Error as error:
            self._damage.note(path, error)
            return None


def _is_wanted(item: Segments, wanted: Filter) -> list[bool]:
    origin, table = item.batch.origin, item.table
    is_of = (
        origin.model == wanted.model
        and wanted.replica in (None, origin.replica)
        and wanted.kind in (None, table.schema.kind)
    )
    return [is_of and wanted.adapter in (None, adapter) for adapter in table.adapter]


def _first_offset(waiting: Sequence[Segments]) -> int | None:
    return min((item.batch.offset for item in waiting), default=None)


def _chosen(waiting: Iterable[Segments], wanted: Callable[[Segments], list[bool]]) -> list[Stored]:
    found = []
    for item in waiting:
        rows = np.flatnonzero(wanted(item))
        if rows.size:
            found.append(Stored(item.batch.origin.model, item.batch.origin.replica, _taken(item.table, rows)))
    return found


def _at_most(found: list[Stored], limit: int) -> list[Stored]:
    kept: list[Stored] = []
    for one in found:
        if limit <= 0:
            break
        rows = np.arange(max(len(one.table) - limit, 0), len(one.table))
        kept.append(Stored(one.model, one.replica, _taken(one.table, rows)))
        limit -= len(rows)
    return kept


def _taken(table: SegmentTable, rows: NDArray[np.intp]) -> SegmentTable:
    # Any: arrays of several types, and names.
    columns: dict[str, Any] = {}
    for field in fields(table)[1:]:
        column = getattr(table, field.name)
        is_array = isinstance(column, np.ndarray)
        columns[field.name] = column[rows] if is_array else [column[row] for row in rows.tolist()]
    return SegmentTable(schema=table.schema, **columns)


def _stored_schema(connection: duckdb.DuckDBPyConnection, path: Path) -> Schema:
    rows = connection.execute(
        "SELECT kind, signal, statistic, layer, head, component FROM read_parquet(?) ORDER BY position",
        [str(path)],
    ).fetchall()
    columns = tuple(Column(signal, Statistic(statistic), *axes) for _, signal, statistic, *axes in rows)
    return Schema(Kind(rows[0][0]), columns)


# Any: rows of DuckDB.
def _stored(schema: Schema, rows: list[tuple[Any, ...]]) -> Stored:
    of = dict(zip(_COLUMNS, zip(*rows, strict=True), strict=True))
    counts = {name: np.array(of[name], np.uint32) for name in _COUNTS}
    table = SegmentTable(
        schema=schema,
        request_id=list(of["request_id"]),
        trace_id=_bytes(of["trace_id"], 16),
        span_id=_bytes(of["span_id"], 8),
        cluster_key=np.array(of["cluster_key"], np.uint64),
        adapter=list(of["adapter"]),
        time_unix_nano=np.array(of["time_unix_nano"], np.uint64),
        sampling_probability=np.array(of["sampling_probability"], np.float32),
        values=np.array(of["values"], np.float32),
        **counts,
    )
    return Stored(of["model"][0], of["replica"][0], table)


def _bytes(ids: Iterable[str | None], width: int) -> NDArray[np.uint8]:
    """Hex ids, None where there was none → uint8 [n, width], 0 there."""
    text = "".join(id_ or "00" * width for id_ in ids)
    return np.frombuffer(bytes.fromhex(text), np.uint8).reshape(-1, width)

"""Batches in, one-minute statistics by series out: a file beside each part, and a track over time from many."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
from numpy.typing import NDArray

from introspan_collector.archive.part import Segments
from introspan_collector.archive.schemas import quoted
from introspan_collector.layout import layout
from introspan_collector.model import SeriesKey
from introspan_collector.moments import Moments
from introspan_collector.sums import by_column, merge_rows, sum_columns
from introspan_collector.view import Track
from introspan_wire.codec import Schema

MINUTE_NANO = 60_000_000_000
_CHUNK_ROWS = 1_024

Wanted = tuple[str, str | None, str | None, str | None, int | None]
"""Signal, model, replica, adapter and layer of the series asked for; None = every."""

_MERGED = """
    WITH parts AS (
        SELECT * REPLACE (minute_unix_seconds // $step * $step AS minute_unix_seconds) FROM read_parquet($parts)
        WHERE signal = $signal AND minute_unix_seconds >= $start AND minute_unix_seconds < $end
          AND (model = $model OR $model IS NULL) AND (replica = $replica OR $replica IS NULL)
          AND (adapter = $adapter OR $adapter IS NULL) AND (layer = $layer OR $layer IS NULL)
    ), means AS (
        SELECT *, sum(weight * mean) OVER series / sum(weight) OVER series AS all_mean FROM parts
        WINDOW series AS (PARTITION BY model, replica, adapter, layer, minute_unix_seconds)
    )
    SELECT model, replica, adapter, layer, minute_unix_seconds, sum(n)::BIGINT, sum(weight), any_value(all_mean),
           sum(m2 + weight * (mean - all_mean) ** 2), min(low), max(high)
    FROM means GROUP BY ALL ORDER BY ALL
"""


class _Group(NamedTuple):
    """What the rows of one rollup have in common."""

    model: str
    replica: str
    adapter: str
    minute_unix_seconds: int


class _Rollup(NamedTuple):
    """Statistics of one schema's segments. sets: [groups, signals and layers]."""

    groups: list[_Group]
    series: Sequence[tuple[str, int]]
    sets: Moments


def write_rollups(connection: duckdb.DuckDBPyConnection, segments: Sequence[Segments], to: Path) -> None:
    """Writes the statistics of segments by (model, replica, adapter, signal, layer, minute received).

    A minute that spans several parts has a row in each: rows of a minute merge. Raises OSError, duckdb.Error.
    """
    by_schema: dict[Schema, list[Segments]] = {}
    for item in segments:
        by_schema.setdefault(item.table.schema, []).append(item)
    rollups = [
        _reduced(schema, members) for schema, members in by_schema.items() if len(layout(schema).order)
    ]
    connection.register("rollup", _columns(rollups))
    try:
        select = "SELECT * FROM rollup WHERE n > 0"
        connection.execute(
            f"COPY ({select}) TO '{quoted(to)}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 8192)"
        )
    finally:
        connection.unregister("rollup")


def _reduced(schema: Schema, members: Sequence[Segments]) -> _Rollup:
    plan = layout(schema)
    numbers: dict[_Group, int] = {}
    group_of = [
        np.array([numbers.setdefault(key, len(numbers)) for key in _groups(item)], np.intp)
        for item in members
    ]
    sets = Moments.empty((len(numbers), len(plan.groups)))
    for first, end in _chunks([len(item.table) for item in members]):
        group = np.concatenate(group_of[first:end])
        order = np.argsort(group, kind="stable")
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        tables = [item.table for item in members[first:end]]
        probability = np.concatenate([table.sampling_probability for table in tables])[order]
        values = by_column([table.values for table in tables])[plan.order[:, None], order]
        found = merge_rows(
            sum_columns(values, plan.column_starts), 1.0 / probability.astype(np.float64), starts
        )
        present = group[order][starts]
        sets.put(present, sets.at(present).merge(found))
    return _Rollup(list(numbers), plan.groups, sets)


def _groups(item: Segments) -> Iterator[_Group]:
    origin, minute = item.batch.origin, item.batch.received_unix_nano // MINUTE_NANO * 60
    return (_Group(origin.model, origin.replica, adapter, minute) for adapter in item.table.adapter)


def _chunks(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Neighbouring tables with about a thousand rows together: what is reduced is in memory several times over."""
    first = total = 0
    for i, count in enumerate(rows):
        total += count
        if total >= _CHUNK_ROWS or i == len(rows) - 1:
            yield first, i + 1
            first, total = i + 1, 0


# Any: columns are arrays of several types, and DuckDB takes them all.
def _columns(rollups: Sequence[_Rollup]) -> dict[str, NDArray[Any]]:
    def per_group(field: int, dtype: type) -> NDArray[Any]:
        return _joined(
            [np.repeat(np.array([g[field] for g in r.groups], dtype), len(r.series)) for r in rollups]
        )

    def per_series(field: int, dtype: type) -> NDArray[Any]:
        return _joined(
            [np.tile(np.array([s[field] for s in r.series], dtype), len(r.groups)) for r in rollups]
        )

    def statistic(name: str) -> NDArray[Any]:
        return _joined([getattr(r.sets, name).ravel() for r in rollups])

    return {
        "model": per_group(0, np.object_),
        "replica": per_group(1, np.object_),
        "adapter": per_group(2, np.object_),
        "signal": per_series(0, np.object_),
        "layer": per_series(1, np.int32),
        "minute_unix_seconds": per_group(3, np.int64),
        "n": statistic("count"),
        "weight": statistic("weight"),
        "mean": statistic("mean"),
        "m2": statistic("m2"),
        "low": statistic("low"),
        "high": statistic("high"),
    }


def _joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:  # Any: as in _columns
    return np.concatenate(arrays) if arrays else np.zeros(0)


def read_rollups(
    connection: duckdb.DuckDBPyConnection,
    paths: Sequence[Path],
    wanted: Wanted,
    from_unix_seconds: float,
    to_unix_seconds: float,
    step_seconds: int = 60,
) -> list[Track]:
    """Tracks of the series wanted: (signal, model, replica, adapter, layer), None = every.

    One point a step, which is a number of whole minutes.
    """
    if not paths:
        return []
    signal, model, replica, adapter, layer = wanted
    asked = {
        "parts": [str(path) for path in paths],
        "signal": signal,
        "start": from_unix_seconds,
        "end": to_unix_seconds,
        "step": step_seconds,
        "model": model,
        "replica": replica,
        "adapter": adapter,
        "layer": layer,
    }
    rows = connection.execute(_MERGED, asked).fetchall()
    tracks: dict[SeriesKey, list[tuple[float, ...]]] = {}
    for model, replica, adapter, layer, *point in rows:
        tracks.setdefault(SeriesKey(model, replica, adapter, signal, layer), []).append(tuple(point))
    return [_track(key, points) for key, points in tracks.items()]


def _track(key: SeriesKey, points: list[tuple[float, ...]]) -> Track:
    starts, count, weight, mean, m2, low, high = np.array(points, np.float64).T
    return Track(
        key,
        starts,
        Moments(count.astype(np.int64), weight, mean, m2, low.astype(np.float32), high.astype(np.float32)),
    )

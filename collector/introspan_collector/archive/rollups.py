"""Batches in, one-minute statistics by series out: a file beside each part, and a track over time from many."""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from introspan_collector.archive.part import Segments
from introspan_collector.archive.schemas import quoted
from introspan_collector.layout import layout
from introspan_collector.model import SeriesKey
from introspan_collector.moments import Moments, reduce_blocks
from introspan_collector.view import Track

MINUTE_NANO = 60_000_000_000

_MERGED = """
    WITH parts AS (
        SELECT * FROM read_parquet(?)
        WHERE signal = ? AND minute_unix_seconds >= ? AND minute_unix_seconds < ?
          AND (model = ? OR ? IS NULL) AND (replica = ? OR ? IS NULL)
          AND (adapter = ? OR ? IS NULL) AND (layer = ? OR ? IS NULL)
    ), means AS (
        SELECT *, sum(weight * mean) OVER series / sum(weight) OVER series AS all_mean FROM parts
        WINDOW series AS (PARTITION BY model, replica, adapter, layer, minute_unix_seconds)
    )
    SELECT model, replica, adapter, layer, minute_unix_seconds, sum(n)::BIGINT, sum(weight), any_value(all_mean),
           sum(m2 + weight * (mean - all_mean) ** 2), min(low), max(high)
    FROM means GROUP BY ALL ORDER BY ALL
"""


def write_rollups(connection: duckdb.DuckDBPyConnection, segments: Sequence[Segments], to: Path) -> None:
    """Writes the statistics of segments by (model, replica, adapter, signal, layer, minute received).

    A minute that spans several parts has a row in each: rows of a minute merge. Raises OSError, duckdb.Error.
    """
    identity: list[tuple[str, str, str, str, int, int]] = []
    reduced: list[Moments] = []
    by_schema: dict[object, list[Segments]] = {}
    for item in segments:
        by_schema.setdefault(item.table.schema, []).append(item)
    for members in by_schema.values():
        plan = layout(members[0].table.schema)
        if not len(plan.order):
            continue
        groups, starts, order = _grouped(members)
        values = np.concatenate([item.table.values for item in members])
        probability = np.concatenate([item.table.sampling_probability for item in members])[order]
        sets = reduce_blocks(
            values[order[:, None], plan.order[None, :]],
            1.0 / probability.astype(np.float64),
            starts,
            plan.column_starts,
        )
        reduced.append(Moments(*(getattr(sets, name).ravel() for name in Moments.__slots__)))
        identity += [
            (model, replica, adapter, signal, layer, minute)
            for model, replica, adapter, minute in groups
            for signal, layer in plan.groups
        ]
    _write(connection, identity, reduced, to)


def _grouped(
    members: Sequence[Segments],
) -> tuple[list[tuple[str, str, str, int]], NDArray[np.intp], NDArray[np.intp]]:
    """Groups of rows, where each starts in the sorted rows, and the order that sorts them."""
    numbers: dict[tuple[str, str, str, int], int] = {}
    group = np.array(
        [
            numbers.setdefault(
                (
                    item.batch.origin.model,
                    item.batch.origin.replica,
                    adapter,
                    item.batch.received_unix_nano // MINUTE_NANO * 60,
                ),
                len(numbers),
            )
            for item in members
            for adapter in item.table.adapter
        ],
        np.intp,
    )
    order = np.argsort(group, kind="stable")
    return list(numbers), np.flatnonzero(np.diff(group[order], prepend=-1)), order


def _write(
    connection: duckdb.DuckDBPyConnection,
    identity: list[tuple[str, str, str, str, int, int]],
    reduced: list[Moments],
    to: Path,
) -> None:
    names = ("model", "replica", "adapter", "signal", "layer", "minute_unix_seconds")
    fields = [
        np.array([row[i] for row in identity], np.int64 if i > 3 else object) for i in range(len(names))
    ]
    table = dict(zip(names, fields, strict=True))
    for stored, name in (
        ("n", "count"),
        ("weight", "weight"),
        ("mean", "mean"),
        ("m2", "m2"),
        ("low", "low"),
        ("high", "high"),
    ):
        arrays = [getattr(sets, name) for sets in reduced]
        table[stored] = np.concatenate(arrays) if arrays else np.zeros(0)
    connection.register("rollup", table)
    try:
        connection.execute(
            f"COPY (SELECT * FROM rollup WHERE n > 0) TO '{quoted(to)}' (FORMAT parquet, COMPRESSION zstd)"  # noqa: S608  # our own path
        )
    finally:
        connection.unregister("rollup")


def read_rollups(
    connection: duckdb.DuckDBPyConnection,
    paths: Sequence[Path],
    wanted: tuple[str, str | None, str | None, str | None, int | None],
    from_unix_seconds: float,
    to_unix_seconds: float,
) -> list[Track]:
    """Tracks, one point a minute, of the series wanted: (signal, model, replica, adapter, layer), None = every."""
    if not paths:
        return []
    signal, *axes = wanted
    twice = [value for axis in axes for value in (axis, axis)]
    rows = connection.execute(
        _MERGED, [[str(path) for path in paths], signal, from_unix_seconds, to_unix_seconds, *twice]
    ).fetchall()
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

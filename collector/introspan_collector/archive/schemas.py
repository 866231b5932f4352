"""Schemas in, one small Parquet file for each out."""

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path

import duckdb
import numpy as np

from introspan_collector.archive.damage import Damage
from introspan_collector.archive.files import hour_of, write_whole
from introspan_wire.codec import SCHEMAS_KEPT, Schema

_FIELDS = ("signal", "statistic", "layer", "head", "component")


@lru_cache(maxsize=SCHEMAS_KEPT)
def schema_id(schema: Schema) -> str:
    """Name of a schema: 16 hex digits that depend on its kind and columns only."""
    text = json.dumps([schema.kind.value, [list(column) for column in schema.columns]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Schemas:
    """The folder `schemas/`: <id>.parquet has a row a column. `position` counts from 1; -1 is no such axis.

    A file's time of modification is in or after the hour of the newest part that refers to it.
    """

    def __init__(self, root: Path, damage: Damage | None = None) -> None:
        self._root = root
        self._damage = Damage() if damage is None else damage
        self._whole: set[Path] = set()

    def store(
        self, connection: duckdb.DuckDBPyConnection, schema: Schema, received_unix_nano: int = 0
    ) -> str:
        """The id of a schema, whose file is on the disk when this returns. Raises OSError, duckdb.Error.

        received_unix_nano: a time in the hour of the part that will refer to it.
        """
        name = schema_id(schema)
        path = self._root / f"{name}.parquet"
        if not self._is_whole(connection, path, schema):
            count = len(schema.columns)
            table: dict[str, np.ndarray[tuple[int], np.dtype[np.object_]]] = {
                "schema_id": np.full(count, name, object),
                "position": np.arange(1, count + 1).astype(object),
                "kind": np.full(count, schema.kind.value, object),
            }
            for field in _FIELDS:
                table[field] = np.array([_plain(getattr(column, field)) for column in schema.columns], object)
            connection.register("schema_columns", table)
            write_whole(
                path,
                lambda to: _copy(connection, "SELECT * FROM schema_columns", to),
            )
            connection.unregister("schema_columns")
        self._whole.add(path)
        _used(path, received_unix_nano)
        return name

    def _is_whole(self, connection: duckdb.DuckDBPyConnection, path: Path, schema: Schema) -> bool:
        """Whether its file is there and can be read, looked at once: no part that refers to it can without."""
        if not path.exists() or path in self._whole:
            return path.exists()
        try:
            select = f"SELECT * FROM read_parquet('{quoted(path)}')"  # noqa: S608  # our own path
            return len(connection.execute(select).fetchall()) == len(schema.columns)
        except duckdb.Error as error:
            self._damage.note(path, error)
            return False

    def all_used(self, unix_nano: int) -> None:
        """Takes every schema for used at a time: which of them are, only reading all parts would tell."""
        for path in self._root.glob("*.parquet"):
            _used(path, unix_nano)

    def delete_before(self, hour: str) -> int:
        """Deletes schemas that no part of this hour or a later one refers to; returns the bytes deleted."""
        deleted = 0
        for path in self._root.glob("*.parquet"):
            found = path.stat()
            if hour_of(found.st_mtime_ns) < hour:
                path.unlink()
                deleted += found.st_size
        return deleted

    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(path.stat().st_size for path in self._root.glob("*.parquet"))


def _used(path: Path, unix_nano: int) -> None:
    if path.stat().st_mtime_ns < unix_nano:
        os.utime(path, ns=(unix_nano, unix_nano))


def _copy(connection: duckdb.DuckDBPyConnection, select: str, to: Path) -> None:
    connection.execute(f"COPY ({select}) TO '{quoted(to)}' (FORMAT parquet)")


def quoted(path: Path) -> str:
    """A path as it stands between quotes in SQL."""
    return str(path).replace("'", "''")


def _plain(value: str | int) -> str | int:
    return str(value) if isinstance(value, str) else int(value)

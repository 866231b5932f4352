"""Small rollups of hours that are over in, one file an hour out: few files to open, little to read of each."""

from itertools import groupby
from pathlib import Path

import duckdb

from introspan_collector.archive.files import Part, contained, part_path, parts, write_whole
from introspan_collector.archive.schemas import quoted

# Larger row groups than parts have: of an hour with 180 of them, reading what is in which took longer than the rest.
FORMAT = "FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 32768"
ORDER = "model, adapter, signal, replica, layer, minute_unix_seconds"
"""Of rows in a joined hour: a question about one model's signal then opens one or two row groups of many."""


def join_hours(connection: duckdb.DuckDBPyConnection, root: Path, before_hour: str) -> None:
    """Joins the parts of each hour before one, each row as it is: rows of a minute merge when they are read.

    The joined part is on the disk before the others are deleted; until then it hides them, because it contains
    their range. An hour that cannot be read stays as it is. Raises OSError, duckdb.Error, for the first of those.
    """
    for left_over in contained(root):
        left_over.path.unlink()
    over = [part for part in parts(root) if part.path.parent.name < f"hour={before_hour}"]
    errors: list[Exception] = []
    for folder, of_hour in groupby(over, key=lambda part: part.path.parent):
        members = list(of_hour)
        if len(members) > 1:
            try:
                _join(connection, root, folder.name.removeprefix("hour="), members)
            except (OSError, duckdb.Error) as error:
                errors.append(error)
    if errors:
        raise errors[0]


def _join(connection: duckdb.DuckDBPyConnection, root: Path, hour: str, members: list[Part]) -> None:
    names = ", ".join(f"'{quoted(part.path)}'" for part in members)
    select = f"SELECT * FROM read_parquet([{names}]) ORDER BY {ORDER}"  # noqa: S608  # our own paths
    write_whole(
        part_path(root, hour, members[0].first, members[-1].end),
        lambda to: connection.execute(f"COPY ({select}) TO '{quoted(to)}' ({FORMAT})"),
    )
    for part in members:
        part.path.unlink()

"""Parts and a question in, the observations that answer it out: as JSON lines, Parquet or rows."""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb

from introspan_collector.archive.damage import Damage
from introspan_collector.archive.files import hour_of, parts
from introspan_collector.archive.part import Segments, write_part
from introspan_collector.archive.schemas import Schemas, quoted

# Nested, values take twenty times as much memory as in a part: parts are read a few at a time, and of what is found
# in them the values of a few observations are nested at a time.
_READ_BYTES = 8 << 20
_NESTED_ROWS = 512
_TAIL_BYTES = 8 << 20
_MEMORY = "1GB"

# vLLM's servers number what belongs to one request: cmpl-X-0 of the prompts of cmpl-X, resp_X_0 of the turns of resp_X,
# and 0_chatcmpl-X of the n samples. contains() first: it is cheap, and almost every row ends there.
REQUEST = """(
    $request_id IS NULL OR contains(request_id, $request_id::VARCHAR)
    AND regexp_full_match(request_id, '([0-9]+_)?' || regexp_escape($request_id) || '([-_][0-9]+)?')
)"""
_MATCHING = f"""
    SELECT request_id, trace_id, span_id, segment_index AS segment, kind, token_start, token_count, cached_tokens,
           prompt_tokens, measured_count,
           strftime(make_timestamp_ns(time_unix_nano), '%Y-%m-%dT%H:%M:%S.%fZ') AS time,
           model, replica, adapter, sampling_probability, log_offset, schema_id, values
    FROM read_parquet($parts)
    WHERE {REQUEST} AND received_unix_nano >= $since_unix_nano
"""  # noqa: S608  # constants
_IDENTITY = """
    request_id, trace_id, span_id, segment, kind, token_start, token_count, cached_tokens, prompt_tokens,
    measured_count, time, model, replica, adapter, sampling_probability
"""
_COLUMNS = """
    CREATE OR REPLACE TEMP TABLE columns AS
    SELECT schema_id, list({signal: signal, layer: nullif(layer, -1), head: nullif(head, -1),
           component: nullif(component, -1), statistic: statistic} ORDER BY position) AS columns
    FROM read_parquet($schemas) GROUP BY schema_id
"""
_CHOSEN = f"""
    CREATE OR REPLACE TEMP TABLE chosen AS {_MATCHING} ORDER BY log_offset, request_id, segment
"""
# Workers that measure parts of one model send the same segments, with columns of their own: the first row of a segment
# from each belongs together, and the second, as clients may use an id again.
_WHOLES = """
    CREATE OR REPLACE TEMP TABLE wholes AS
    SELECT line, dense_rank() OVER (ORDER BY first_line) - 1 AS number FROM (
        SELECT line, min(line) OVER (PARTITION BY segment_of, nth) AS first_line FROM (
            SELECT line, segment_of, row_number() OVER (PARTITION BY segment_of, schema_id ORDER BY line) AS nth FROM (
                SELECT rowid AS line, schema_id,
                       (model, replica, adapter, request_id, kind, segment, token_start) AS segment_of FROM chosen
            )
        )
    )
"""
_COUNTED = "SELECT count(DISTINCT number), count(*) FROM wholes"
# Lists are zipped row by row, so that nothing has to be grouped, however many values there are.
_VALUES = """[
    {signal: x[2].signal, layer: x[2].layer, head: x[2].head, component: x[2].component,
     statistic: x[2].statistic, value: x[1]}
    FOR x IN list_zip(values, columns) IF isfinite(x[1]) AND coalesce(x[2].signal = $signal, $signal IS NULL)
]"""
_NESTED = f"""
    SELECT {_IDENTITY}, values FROM (
        SELECT chosen.rowid AS line, * EXCLUDE (values), {_VALUES} AS values
        FROM chosen JOIN columns USING (schema_id) WHERE chosen.rowid >= $first AND chosen.rowid < $end
    ) WHERE len(values) > 0 OR $signal IS NULL ORDER BY line
"""  # noqa: S608  # constants
# One worker may have fewer of a segment's tokens than another, see joined.py.
_FIRST = ", ".join(
    f"max({name}) AS {name}"
    if name in {"token_count", "measured_count"}
    else f"first({name} ORDER BY line) AS {name}"
    for name in map(str.strip, _IDENTITY.split(","))
)
_JOINED = f"""
    SELECT {_FIRST}, flatten(list(values ORDER BY line)) AS values FROM (
        SELECT line, number, chosen.* EXCLUDE (values), {_VALUES} AS values
        FROM wholes JOIN chosen ON chosen.rowid = line JOIN columns USING (schema_id)
        WHERE number >= $first AND number < $end
    ) WHERE len(values) > 0 OR $signal IS NULL GROUP BY number ORDER BY number
"""  # noqa: S608  # constants
_SUMMED = """
    SELECT * EXCLUDE (values), len(values) AS measured, list_avg([x.value FOR x IN values]) AS mean FROM ({})
"""
# In the order of the parts: sorting would have all values in memory.
_LONG = f"""
    SELECT {_IDENTITY}, named.signal, named.layer, named.head, named.component, named.statistic, value
    FROM (
        SELECT * EXCLUDE (values, columns), unnest(values) AS value, unnest(columns) AS named
        FROM ({_MATCHING}) JOIN columns USING (schema_id)
    ) WHERE isfinite(value) AND coalesce(named.signal = $signal, $signal IS NULL)
"""  # noqa: S608  # constants


@dataclass(frozen=True, slots=True)
class Question:
    """Which observations: of one request, received since a time, and of their values only one signal's.

    request_id: as its client knows it, whose prompts, turns and samples it stands for, or as an observation says it.
    """

    request_id: str | None = None
    since_unix_nano: int = 0
    signal: str | None = None


class Observations:
    """Observations in an archive, and in the tail of the log that is in no part yet. Reads only.

    tail: gives what the log holds from an offset on; it is asked once, for what comes after the parts, and
    written to temporary parts. A part that the archive writes meanwhile is not looked at: nothing comes twice.
    """

    def __init__(
        self, directory: Path, tail: Callable[[int], Iterable[Segments]] = lambda _offset: ()
    ) -> None:
        self._directory = directory
        self._temporary = tempfile.TemporaryDirectory(prefix="introspan-observations-")
        # Else DuckDB takes most of the machine's memory, and then writes below the folder it is called in.
        bounds = {"memory_limit": _MEMORY, "temp_directory": f"{self._temporary.name}/spilled"}
        self._connection = duckdb.connect(":memory:", config=bounds)
        self._damage = Damage()
        self._knows_columns: bool | None = None
        self._tail_parts: list[Path] = []
        self._tail_root = Path(self._temporary.name)
        self._archived = parts(directory / "observations")
        self._write_tail(tail(max((part.end for part in self._archived), default=0)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._temporary.cleanup()

    def rows(self, question: Question) -> Iterator[dict[str, Any]]:  # Any: as in JSON
        """Each observation as a dictionary: identity, and `values`, a list of dictionaries."""
        for some in self._neighbours(question):
            nested, chunks = self._chosen(question, some)
            for chunk in chunks:
                yield from self._asked(nested, chunk)

    def newest(self, question: Question, limit: int) -> list[dict[str, Any]]:  # Any: as in JSON
        """The newest observations, oldest first: identity, how many values were measured, and their mean."""
        found: list[dict[str, Any]] = []  # Any: as in JSON
        for some in reversed(self._neighbours(question)):
            nested, chunks = self._chosen(question, some)
            for chunk in reversed(chunks):
                found += list(self._asked(_SUMMED.format(nested), chunk))[::-1]
                if len(found) >= limit:
                    return found[limit - 1 :: -1]
        return found[::-1]

    def write_json_lines(self, question: Question, to: Path) -> None:
        """Writes one observation a line, values nested."""
        lines = self._tail_root / "lines"
        with to.open("wb") as file:
            for some in self._neighbours(question):
                nested, chunks = self._chosen(question, some)
                for chunk in chunks:
                    self._copy(nested, chunk, lines, "FORMAT json")
                    with lines.open("rb") as found:
                        shutil.copyfileobj(found, file)

    def write_parquet(self, question: Question, to: Path) -> None:
        """Writes one row a value, the observation's identity beside each."""

        def write(files: list[Path]) -> None:
            if files:
                asked = {**self._parameters(question, files), "signal": question.signal}
                self._copy(_LONG, asked, to, "FORMAT parquet, COMPRESSION zstd")
            elif not to.exists() or to.is_file():
                to.write_bytes(b"")

        files = self._files(question) if self._know_columns() else []
        self._damage.read(lambda: files, write, lambda path: self._choose(question, [path]))

    # Any: what DuckDB takes, and gives.
    def _asked(self, select: str, parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
        result = self._connection.execute(select, parameters)
        names = [column[0] for column in result.description]
        return (dict(zip(names, row, strict=True)) for row in result.fetchall())

    # Any: what DuckDB takes.
    def _copy(self, select: str, parameters: dict[str, Any], to: Path, form: str) -> None:
        self._connection.execute(f"COPY ({select}) TO '{quoted(to)}' ({form})", parameters)

    # Any: what DuckDB takes.
    def _chosen(self, question: Question, some: Sequence[Path]) -> tuple[str, list[dict[str, Any]]]:
        """Has what answers in some files at hand; how to ask for it, and parameters of a few at a time, in order."""
        # Reading takes minutes where there is much, and retention goes on.
        found = self._know_columns() and self._damage.read(
            lambda: [path for path in some if path.exists()], lambda files: self._choose(question, files)
        )
        if not found:
            return _NESTED, []
        self._connection.execute(_WHOLES)
        count, rows = self._connection.execute(_COUNTED).fetchall()[0]
        return _NESTED if count == rows else _JOINED, [
            {"signal": question.signal, "first": first, "end": first + _NESTED_ROWS}
            for first in range(0, count, _NESTED_ROWS)
        ]

    def _know_columns(self) -> bool:
        """Whether it is known what the columns of schemas mean, which is asked for once."""
        if self._knows_columns is None:
            paths = [
                *(self._directory / "schemas").glob("*.parquet"),
                *self._tail_root.glob("schemas/*.parquet"),
            ]
            # The same schema may be in both places.
            by_name = {path.name: path for path in paths}
            self._knows_columns = self._damage.read(lambda: sorted(by_name.values()), self._read_columns)
        return self._knows_columns

    def _read_columns(self, schemas: list[Path]) -> bool:
        if schemas:
            self._connection.execute(_COLUMNS, {"schemas": [str(path) for path in schemas]})
        return bool(schemas)

    def _choose(self, question: Question, files: Sequence[Path]) -> bool:
        if files:
            self._connection.execute(_CHOSEN, self._parameters(question, files))
        return bool(files)

    def _neighbours(self, question: Question) -> list[list[Path]]:
        """The files that are read, a few at a time, in log order; for one request all at once, as it is little."""
        if question.request_id is not None:
            return [self._files(question)]
        groups: list[list[Path]] = []
        room = 0
        for path in self._files(question):
            room -= path.stat().st_size if path.exists() else 0
            if room < 0 or not groups:
                groups.append([])
                room = _READ_BYTES
            groups[-1].append(path)
        return groups

    def _files(self, question: Question) -> list[Path]:
        hour = f"hour={hour_of(question.since_unix_nano)}"
        archived = [
            part.path for part in self._archived if part.path.parent.name >= hour and part.path.exists()
        ]
        return archived + self._tail_parts

    # Any: what DuckDB takes.
    def _parameters(self, question: Question, some: Sequence[Path]) -> dict[str, Any]:
        return {
            "parts": [str(path) for path in some],
            "request_id": question.request_id,
            "since_unix_nano": question.since_unix_nano,
        }

    def _write_tail(self, tail: Iterable[Segments]) -> None:
        waiting: list[Segments] = []
        waiting_bytes = 0
        for item in tail:
            waiting.append(item)
            waiting_bytes += item.table.values.nbytes
            if waiting_bytes >= _TAIL_BYTES:
                self._write_tail_part(waiting)
                waiting, waiting_bytes = [], 0
        if waiting:
            self._write_tail_part(waiting)

    def _write_tail_part(self, segments: list[Segments]) -> None:
        schemas = Schemas(self._tail_root / "schemas")
        ids = {
            schema: schemas.store(self._connection, schema)
            for schema in {item.table.schema for item in segments}
        }
        path = self._tail_root / f"tail-{len(self._tail_parts):06d}.parquet"
        write_part(self._connection, segments, ids, path)
        self._tail_parts.append(path)

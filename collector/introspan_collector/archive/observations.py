"""Parts and a question in, the observations that answer it out: as JSON lines, Parquet or rows."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb

from introspan_collector.archive.files import hour_of, parts
from introspan_collector.archive.part import Segments, write_part
from introspan_collector.archive.schemas import Schemas, quoted

_TAIL_BYTES = 32 << 20

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
# Lists are zipped row by row, so that nothing has to be grouped, however many values there are.
_FOUND = f"""
    WITH columns AS (
        SELECT schema_id, list({{signal: signal, layer: nullif(layer, -1), head: nullif(head, -1),
               component: nullif(component, -1), statistic: statistic}} ORDER BY position) AS columns
        FROM read_parquet($schemas) GROUP BY schema_id
    ), nested AS (
        SELECT * EXCLUDE (values, columns, schema_id), [
            {{signal: x[2].signal, layer: x[2].layer, head: x[2].head, component: x[2].component,
              statistic: x[2].statistic, value: x[1]}}
            FOR x IN list_zip(values, columns) IF isfinite(x[1]) AND coalesce(x[2].signal = $signal, $signal IS NULL)
        ] AS values
        FROM ({_MATCHING}) JOIN columns USING (schema_id)
    )
    SELECT log_offset, {_IDENTITY}, values FROM nested WHERE len(values) > 0 OR $signal IS NULL
"""  # noqa: S608  # constants
_NESTED = f"SELECT {_IDENTITY}, values FROM ({_FOUND}) ORDER BY log_offset, request_id, segment"  # noqa: S608  # constants
# What a person reads: no values, so that those of many observations are in memory no longer than it takes to add them.
_NEWEST = f"""
    SELECT {_IDENTITY}, len(values) AS measured, list_avg([x.value FOR x IN values]) AS mean FROM ({_FOUND})
    ORDER BY log_offset DESC, request_id DESC, segment DESC LIMIT $limit
"""  # noqa: S608  # constants
_LONG = f"""
    SELECT {_IDENTITY}, unnested.signal, unnested.layer, unnested.head, unnested.component, unnested.statistic,
           unnested.value
    FROM (SELECT * EXCLUDE (values), unnest(values) AS unnested FROM ({_NESTED}))
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
        self._connection = duckdb.connect(":memory:")
        self._temporary = tempfile.TemporaryDirectory(prefix="introspan-observations-")
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
        if not self._files(question):
            return
        result = self._connection.execute(_NESTED, self._parameters(question))
        names = [column[0] for column in result.description]
        while some := result.fetchmany(1_000):
            for row in some:
                yield dict(zip(names, row, strict=True))

    def newest(self, question: Question, limit: int) -> list[dict[str, Any]]:  # Any: as in JSON
        """The newest observations, oldest first: identity, how many values were measured, and their mean."""
        if not self._files(question):
            return []
        result = self._connection.execute(_NEWEST, {**self._parameters(question), "limit": limit})
        names = [column[0] for column in result.description]
        return [dict(zip(names, row, strict=True)) for row in reversed(result.fetchall())]

    def write_json_lines(self, question: Question, to: Path) -> None:
        """Writes one observation a line, values nested."""
        self._write(_NESTED, question, to, "FORMAT json")

    def write_parquet(self, question: Question, to: Path) -> None:
        """Writes one row a value, the observation's identity beside each."""
        self._write(_LONG, question, to, "FORMAT parquet, COMPRESSION zstd")

    def _write(self, select: str, question: Question, to: Path, form: str) -> None:
        if not self._files(question):
            if not to.exists() or to.is_file():
                to.write_bytes(b"")
            return
        self._connection.execute(f"COPY ({select}) TO '{quoted(to)}' ({form})", self._parameters(question))

    def _files(self, question: Question) -> list[Path]:
        hour = f"hour={hour_of(question.since_unix_nano)}"
        archived = [
            part.path for part in self._archived if part.path.parent.name >= hour and part.path.exists()
        ]
        return archived + self._tail_parts

    def _parameters(self, question: Question) -> dict[str, Any]:  # Any: what DuckDB takes
        schemas = [
            *(self._directory / "schemas").glob("*.parquet"),
            *self._tail_root.glob("schemas/*.parquet"),
        ]
        # The same schema may be in both places.
        by_name = {path.name: str(path) for path in schemas}
        return {
            "parts": [str(path) for path in self._files(question)],
            "schemas": sorted(by_name.values()),
            "request_id": question.request_id,
            "since_unix_nano": question.since_unix_nano,
            "signal": question.signal,
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

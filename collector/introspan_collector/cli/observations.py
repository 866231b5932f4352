"""A question on the command line in, the observations that answer it out."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import structlog
import typer

from introspan_collector.duration import seconds
from introspan_wire.signals import CATALOGUE

if TYPE_CHECKING:
    from introspan_collector.archive.observations import Observations, Question
    from introspan_collector.archive.part import Segments


_TABLE_ROWS = 1_000
"""Most observations that a table shows: it is in memory as a whole, and nobody reads more."""


class Format(StrEnum):
    """How observations are written."""

    TABLE = "table"
    JSONL = "jsonl"
    PARQUET = "parquet"


def register(app: typer.Typer) -> None:
    """Adds `introspan observations`."""
    app.command("observations")(observations)


def observations(
    data: Annotated[Path, typer.Option(help="The collector's folder.")] = Path("introspan-data"),
    request_id: Annotated[
        str | None,
        typer.Option(
            help="Only this request, by its client's id: finds ID, and ID-0, ID_0, 0_ID, any number."
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Only what was received since then: 90s, 10m, 2h, 7d.")
    ] = None,
    signal: Annotated[str | None, typer.Option(help="Only the values of this signal.")] = None,
    form: Annotated[
        Format, typer.Option("--format", help=f"How to write them; a table shows the newest {_TABLE_ROWS:,}.")
    ] = Format.TABLE,
    output: Annotated[Path | None, typer.Option(help="File to write; standard output if not given.")] = None,
) -> None:
    """Shows observations, also while the collector runs: from the archive and from the end of the log."""
    # Imported here: `introspan --help` should not wait for DuckDB.
    import duckdb  # noqa: PLC0415 as above

    from introspan_collector.archive.observations import Observations, Question  # noqa: PLC0415 as above

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    archive = _archive(data)
    _check(signal, form, output)
    since_unix_nano = 0 if since is None else time.time_ns() - round(_duration_seconds(since) * 1e9)
    question = Question(request_id, since_unix_nano, signal)
    tail = partial(_log_tail, data / "log", since_unix_nano)
    try:
        with Observations(archive, tail) as found:
            _write(found, question, form, output)
    except BrokenPipeError:
        # The reader of our output has seen enough; without this Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, duckdb.Error) as error:
        _refuse(f"cannot read --data {data} or write --output {output}: {error}")


def _check(signal: str | None, form: Format, output: Path | None) -> None:
    if signal is not None and signal not in CATALOGUE:
        _refuse(f"--signal {signal} is not known; known are {', '.join(CATALOGUE)}")
    if form is Format.PARQUET and output is None and sys.stdout.isatty():
        _refuse("--format parquet is not text: give --output FILE")


def _archive(data: Path) -> Path:
    archive = data / "archive"
    if not (data / "log").is_dir() and not archive.is_dir():
        _refuse(f"--data {data} is not a collector's folder: it has neither log/ nor archive/")
    return archive


def _write(found: "Observations", question: "Question", form: Format, output: Path | None) -> None:
    if form is Format.TABLE:
        _write_table(found, question, output)
        return
    with tempfile.TemporaryDirectory(prefix="introspan-observations-") as folder:
        # DuckDB would open /dev/stdout anew, and cut off a file that the shell appends to.
        to = output or Path(folder) / "output"
        if form is Format.JSONL:
            found.write_json_lines(question, to)
        else:
            found.write_parquet(question, to)
        if output is None:
            with to.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.flush()


def _write_table(found: "Observations", question: "Question", output: Path | None) -> None:
    from rich.console import Console  # noqa: PLC0415 see observations()
    from rich.table import Table  # noqa: PLC0415 see observations()

    from introspan_collector.terminal import cell  # noqa: PLC0415 see observations()

    table = Table(
        "time", "model", "replica", "request", "segment", "tokens", "cached", "trace", "values", "mean"
    )
    rows = found.newest(question, _TABLE_ROWS + 1)
    for row in rows[-_TABLE_ROWS:]:
        # A mean over different signals says nothing.
        mean = f"{row['mean']:.4g}" if question.signal and row["measured"] else ""
        first, count = row["token_start"], row["token_count"]
        cells = (
            row["time"],
            row["model"],
            row["replica"],
            row["request_id"],
            f"{row['segment']} {row['kind']}",
            f"{first}–{first + count - 1}",
            f"{row['cached_tokens']}/{row['prompt_tokens']}",
            row["trace_id"] or "",
            str(row["measured"]),
            mean,
        )
        table.add_row(*map(cell, cells))
    if output is None:
        # Where there is no terminal there is no width to keep to.
        Console(width=None if sys.stdout.isatty() else 200).print(table)
    else:
        with output.open("w") as file:
            Console(file=file, width=200).print(table)
    if len(rows) > _TABLE_ROWS:
        typer.echo(
            f"introspan observations: there are more; the newest {_TABLE_ROWS:,} are shown: narrow them down by "
            "--request-id, --since or --signal, or take all by --format jsonl",
            err=True,
        )


def _log_tail(directory: Path, since_unix_nano: int, offset: int) -> Iterator["Segments"]:
    """What the log holds from an offset on; read only, also while the collector writes."""
    from introspan_collector.archive.part import Segments  # noqa: PLC0415 see observations()
    from introspan_collector.log.files import Disk  # noqa: PLC0415 see observations()
    from introspan_collector.log.reader import Reader  # noqa: PLC0415 see observations()
    from introspan_collector.log.segment import segment_name, segment_starts  # noqa: PLC0415 see observations()
    from introspan_collector.records import to_batch  # noqa: PLC0415 see observations()
    from introspan_wire.codec import FrameError  # noqa: PLC0415 see observations()

    if not directory.is_dir():
        return
    files = Disk(directory, read_only=True)
    starts = segment_starts(files)
    if not starts:
        return
    end = starts[-1] + files.size(segment_name(starts[-1]))
    reader = Reader(files, offset)
    while (found := reader.next_record(end)) is not None:
        if found.header.received_unix_nano < since_unix_nano:
            continue
        try:
            batch = to_batch(found)
        except FrameError as error:
            typer.echo(f"introspan observations: a record of the log is left out: {error}", err=True)
            continue
        yield from (Segments(batch, table) for table in batch.tables if len(table))


def _duration_seconds(text: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        _refuse(f"--since {error}")


def _refuse(problem: str) -> NoReturn:
    typer.echo(f"introspan observations: {problem}", err=True)
    raise typer.Exit(2)

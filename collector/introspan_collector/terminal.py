"""What commands have in common: answers in, tables or JSON out, and an exit code that says how it went."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from introspan_collector.client import Client, ClientError

if TYPE_CHECKING:
    from rich.text import Text

DEFAULT_URL = "http://127.0.0.1:9464"
_WIDTH = 160


class Format(StrEnum):
    """How answers are written."""

    TABLE = "table"
    JSON = "json"


Url = Annotated[str, typer.Option(help="Address of the collector.")]
TokenFile = Annotated[Path | None, typer.Option(help="File with the token of http_token_file.")]
Form = Annotated[Format, typer.Option("--format", help="How to write it.")]


@contextmanager
def asking(command: str, url: str, token_file: Path | None) -> Iterator[Client]:
    """A client for one command, which ends with 2 where it was called wrongly and with 1 where it was refused.

    What is made of an answer belongs inside: what it lacks there is said as well.
    """
    try:
        with Client(url, token_file) as client:
            yield client
    except ClientError as error:
        fail(command, str(error), 1)
    except ValueError as error:
        fail(command, str(error), 2)
    except (AttributeError, LookupError, TypeError) as error:
        fail(command, f"--url {url} does not answer as a collector of this version does: {error!r}", 1)


def fail(command: str, problem: str, code: int) -> NoReturn:
    """Says what went wrong and ends."""
    typer.echo(f"introspan {command}: {problem}", err=True)
    raise typer.Exit(code)


# Any: JSON.
def print_json(answer: Any) -> None:
    """The answer, as it was given."""
    sys.stdout.write(json.dumps(answer, indent=1) + "\n")


def print_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """A table; a title alone where there are no rows."""
    from rich.console import Console  # noqa: PLC0415 `introspan --help` should not wait for it
    from rich.table import Table  # noqa: PLC0415 as above

    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(cell, row))
    # Where there is no terminal there is no width to keep to.
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    console.print(table if table.row_count else title)


def cell(text: str) -> "Text":
    """A text that strangers chose, as it may stand in a table: brackets are no markup, nor is anything a command."""
    from rich.text import Text  # noqa: PLC0415 see print_table()

    return Text("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text))


def at(unix_seconds: float | None) -> str:
    """A time as people write it, in UTC."""
    if unix_seconds is None:
        return ""
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")

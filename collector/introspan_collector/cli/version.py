"""The installed package in, its version out."""

from importlib.metadata import version
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds `introspan --version`."""
    app.callback()(introspan)


def _print(wanted: bool) -> None:  # noqa: FBT001 typer calls it with the option's value
    if wanted:
        typer.echo(f"introspan {version('introspan')}")
        raise typer.Exit


def introspan(
    version: Annotated[  # noqa: FBT002 typer makes an option of it
        bool, typer.Option("--version", help="Show the version and exit.", callback=_print, is_eager=True)
    ] = False,
) -> None:
    """Options beside the commands."""

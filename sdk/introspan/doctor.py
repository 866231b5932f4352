"""The name of a model in; what Introspan would capture of it here, and why not where not, out: `introspan doctor`."""

import logging
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

from introspan.config import Settings, SettingsError, load

_NOTHING = "not captured: capture: "


def diagnose(model: str) -> Iterator[str]:
    """Lines for a person: settings, collector, engine, model."""
    try:
        settings = load(os.environ)
    except SettingsError as error:
        yield f"{_NOTHING}{error}"
        settings = Settings()
    yield settings.off_because or f"settings: capture is on, exporting to {settings.endpoint}"
    if settings.endpoint is not None:
        yield _collector(settings.endpoint)
    try:
        from introspan.capture import inspection  # noqa: PLC0415 - torch and vLLM may not be installed

        yield from inspection.engine()
    except ImportError as error:
        yield f"{_NOTHING}{error.name} is not installed here; run this where the model is served"
        return
    yield from inspection.model(model, settings)


def _collector(endpoint: str) -> str:
    host, _, port = endpoint.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=3):
            return f"collector: {endpoint} accepts connections"
    except OSError as error:
        why = error.strerror or error
        return f"collector: {endpoint} cannot be reached ({why}); start it, or correct INTROSPAN_ENDPOINT"


def doctor(model: str) -> None:
    """Say what would be captured for the installed vLLM and MODEL (a folder or hub id), and why not where not.

    The exit code is 1 where that is nothing, or cannot be told.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    # What the plugin would log in this process is said here in its own words.
    logging.getLogger("introspan").addHandler(logging.NullHandler())
    nothing = False
    for line in diagnose(model):
        nothing = nothing or line.startswith((_NOTHING, "not known: "))
        print(line, flush=True)  # noqa: T201 - a command
    if nothing:
        sys.exit(1)


# Any: typer.Typer, which is not installed where only the SDK is.
def register(app: Any) -> None:
    """Adds the command to `introspan`; without the collector it is `python -m introspan.doctor MODEL`."""
    app.command(name="doctor")(doctor)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m introspan.doctor MODEL")
    doctor(sys.argv[1])

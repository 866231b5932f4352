"""A step in; its values out, from a process of its own that is ended, with all that it started, when time is up."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class StepError(Exception):
    """A step ended without a result."""


def run(command: Sequence[str], limit_seconds: float) -> dict[str, Any]:
    """What the command wrote, as JSON, to the file whose name is its last argument.

    Raises StepError for one that fails, or takes longer than the limit; then nothing of it is left running.
    """
    with tempfile.TemporaryDirectory(prefix="introspan-gpu-") as scratch:
        into = Path(scratch, "values.json")
        process = subprocess.Popen([*command, str(into)], start_new_session=True)
        try:
            code = process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            raise StepError(f"took longer than {limit_seconds:g} s") from None
        finally:
            _end(process)
        if code != 0 or not into.exists():
            raise StepError(f"ended with exit code {code}")
        values: dict[str, Any] = json.loads(into.read_text(encoding="utf-8"))
        return values


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a step's whole session: an engine that it left would keep its memory on the GPU."""
    with contextlib.suppress(ProcessLookupError):  # all of it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

"""Orders for engines in, their exit codes out: each is forked off one process that has imported vLLM before.

To import it takes longer than many a test.
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Order:
    """One engine to fork: the files of its run, its result and its messages, and its whole environment."""

    given: str
    out: str
    stderr: str
    environ: dict[str, str]


class Host:
    """The process that engines are forked off. It ends with the tests, as its standard input does then."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("driving.py")],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def run(self, order: Order, timeout_seconds: float) -> int:
        """The exit code of the engine, negative where a signal ended it; after the time-out it is killed."""
        given, taken = self._process.stdin, self._process.stdout
        assert given is not None
        assert taken is not None
        given.write(json.dumps(asdict(order)) + "\n")
        pid = int(taken.readline())
        if not select.select([taken], [], [], timeout_seconds)[0]:
            os.kill(pid, signal.SIGKILL)
        return int(taken.readline())

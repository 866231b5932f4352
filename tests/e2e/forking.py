"""Orders for engines, programs and servers in, processes out: all forked off one that has imported vLLM before.

To import it takes longer than many a test, and a server imports it three times.
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Order:
    """One engine to fork: the files of its run, its result and its messages, and its whole environment."""

    given: str
    out: str
    stderr: str
    environ: dict[str, str]


@dataclass(frozen=True, slots=True)
class ProgramOrder:
    """`python -m module options` to fork: the files of what it prints and of its messages, its whole environment."""

    module: str
    options: list[str]
    stdout: str
    stderr: str
    environ: dict[str, str]


@dataclass(frozen=True, slots=True)
class ServerOrder:
    """One server to fork: its options as on a command line, the file of its messages, and its whole environment."""

    options: list[str]
    stderr: str
    environ: dict[str, str]


@dataclass(frozen=True, slots=True)
class Stop:
    """A server that is to end, by its process group: killed after patience_seconds."""

    pid: int
    patience_seconds: float


@dataclass(frozen=True, slots=True)
class Forked:
    """A server that runs; pidfd becomes readable when it ends, log is everything it printed."""

    name: str
    pidfd: int
    log: Path

    def ended(self) -> bool:
        """Whether it is gone; its children may not be."""
        return bool(select.select([self.pidfd], [], [], 0)[0])

    def log_tail(self, lines: int) -> str:
        """The last lines that it printed."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


class Host:
    """The process that engines and servers are forked off.

    It ends with the tests, as its standard input does then, and ends what it has forked.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("zygote.py")],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def run(self, order: Order | ProgramOrder, timeout_seconds: float) -> int:
        """The exit code of what was forked, negative where a signal ended it; after the time-out it is killed."""
        taken = self._process.stdout
        assert taken is not None
        pid = self._ask(order)
        if not select.select([taken], [], [], timeout_seconds)[0]:
            os.kill(pid, signal.SIGKILL)
        return int(taken.readline())

    @contextmanager
    def serving(self, name: str, order: ServerOrder, patience_seconds: float) -> Iterator[Forked]:
        """A server, which need not answer yet; ended on leaving, with everything that it has started."""
        pid = self._ask(order)
        pidfd = os.pidfd_open(pid)
        try:
            yield Forked(name, pidfd, Path(order.stderr))
        finally:
            os.close(pidfd)
            self._ask(Stop(pid, patience_seconds))

    def _ask(self, order: Order | ProgramOrder | ServerOrder | Stop) -> int:
        given, taken = self._process.stdin, self._process.stdout
        assert given is not None
        assert taken is not None
        given.write(json.dumps({type(order).__name__: asdict(order)}) + "\n")
        return int(taken.readline())

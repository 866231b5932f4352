"""Commands in, running process groups out, ended by their own ids."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 0.1


class DemoError(Exception):
    """Something the demonstration cannot go on without; its text says what and why."""


class PortTakenError(DemoError):
    """Somebody took a port after it was found free and before the program that was to listen on it did."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program that was started in a process group of its own; log is everything it printed."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def ended(self) -> bool:
        """Whether it is gone; its children may not be."""
        return self.process.poll() is not None

    def log_tail(self, lines: int) -> str:
        """The last lines that it printed."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def stop(self, patience_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Asks its group to end, and ends it after patience_seconds."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
            deadline = clock() + patience_seconds
            while clock() < deadline:
                self.process.poll()  # a child that is not waited for stays in its group for ever
                os.killpg(self.process.pid, 0)
                time.sleep(_POLL_SECONDS)
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def start(
    name: str,
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    folder: Path,
    patience_seconds: float,
) -> Iterator[Program]:
    """A running program with environment added to ours, ended on leaving; folder takes its log."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Its own group: Ctrl-C reaches us alone, and everything it starts can be ended with it.
            start_new_session=True,
        )
    program = Program(name, process, log)
    try:
        yield program
    finally:
        # A second Ctrl-C must not leave half of it running; what follows ends in patience_seconds.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        program.stop(patience_seconds)
        signal.signal(signal.SIGINT, before)


def loopback_port(preferred: int) -> int:
    """The preferred port, or a free one where somebody listens on it already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

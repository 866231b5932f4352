"""A folder in; the addresses of a collector of its own, running on loopback, out."""

import contextlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from demo.processes import Program, start
from introspan_collector.testing import free_address

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Running:
    """A collector that answers; grpc and http are host:port."""

    pid: int
    grpc: str
    http: str

    def get(self, path: str, accept: str = "text/plain", **parameters: str) -> httpx.Response:
        """What it answers on HTTP."""
        url = f"http://{self.http}{path}"
        return httpx.get(url, params=parameters, headers={"accept": accept}, timeout=30.0)


@contextmanager
def collector(folder: Path, config: str = "") -> Iterator[Running]:
    """A collector that keeps its data and its log in the folder, drained and ended on leaving."""
    grpc, http = free_address(), free_address()
    file = folder / "collector.toml"
    file.write_text(config)
    where = ("--config", file, "--data", folder / "data", "--grpc", grpc, "--http", http)
    command = (Path(sys.executable).with_name("introspan"), "collector", *where)
    with start("collector", command, {}, folder, _STOP_SECONDS) as program:
        running = Running(program.process.pid, grpc, http)
        _wait_until_ready(running, program)
        yield running


def _wait_until_ready(running: Running, program: Program) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        if program.ended():
            raise ChildProcessError(f"the collector ended:\n{program.log_tail(20)}")
        with contextlib.suppress(httpx.TransportError):  # not listening yet
            if running.get("/readyz").is_success:
                return
        time.sleep(0.05)
    raise TimeoutError(f"the collector was not ready within {_START_SECONDS:g} s:\n{program.log_tail(20)}")

"""A folder in; the addresses of a collector of its own, running on loopback, out."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from introspan_collector.testing import free_address

_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Running:
    """A collector that answers; grpc and http are host:port."""

    pid: int
    grpc: str
    http: str

    def get(self, path: str, accept: str = "text/plain") -> httpx.Response:
        """What it answers on HTTP."""
        return httpx.get(f"http://{self.http}{path}", headers={"accept": accept}, timeout=30.0)


@contextmanager
def collector(folder: Path) -> Iterator[Running]:
    """A collector that keeps its data in the folder, drained and ended on leaving."""
    running_grpc, running_http = free_address(), free_address()
    program = Path(sys.executable).with_name("introspan")
    command: list[str | Path] = [
        program,
        "collector",
        "--data",
        folder,
        "--grpc",
        running_grpc,
        "--http",
        running_http,
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        running = Running(process.pid, running_grpc, running_http)
        _wait_until_ready(running)
        yield running
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_until_ready(running: Running) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        try:
            if running.get("/readyz").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)  # not listening yet
    raise TimeoutError(f"the collector was not ready within {_START_SECONDS:g} s")

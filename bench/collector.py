"""A folder in; the addresses of a collector of its own, running on loopback, out."""

import contextlib
import os
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
    """A collector that answers; grpc and http are host:port, data is its folder."""

    pid: int
    grpc: str
    http: str
    data: Path

    def get(self, path: str, accept: str = "text/plain", **parameters: str) -> httpx.Response:
        """What it answers on HTTP."""
        url = f"http://{self.http}{path}"
        return httpx.get(url, params=parameters, headers={"accept": accept}, timeout=30.0)


@contextmanager
def collector(folder: Path, log: Path | None = None) -> Iterator[Running]:
    """A collector that keeps its data in the folder, drained and ended on leaving; log takes what it prints."""
    grpc, http = free_address(), free_address()
    program = Path(sys.executable).with_name("introspan")
    command: list[str | Path] = [program, "collector", "--data", folder, "--grpc", grpc, "--http", http]
    with Path(log or os.devnull).open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        running = Running(process.pid, grpc, http, folder)
        _wait_until_ready(running, process, log)
        yield running
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_until_ready(running: Running, process: subprocess.Popen[bytes], log: Path | None) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            where = "" if log is None else f": see {log}"
            raise ChildProcessError(f"the collector ended with status {process.returncode}{where}")
        with contextlib.suppress(httpx.TransportError):  # not listening yet
            if running.get("/readyz").is_success:
                return
        time.sleep(0.05)
    raise TimeoutError(f"the collector was not ready within {_START_SECONDS:g} s")

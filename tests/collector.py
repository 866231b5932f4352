"""A folder in; the collector as operators run it out: asked, signalled, killed, started again on the same data."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from demo.processes import Program, start
from tests.patience import eventually, until_answering

_INTROSPAN = Path(sys.executable).with_name("introspan")
_STOP_SECONDS = 20.0


class Collector:
    """One collector process after another, with the same addresses, data and configuration file."""

    def __init__(self, folder: Path, free_port: Callable[[], int], config: str = "") -> None:
        self.folder = folder
        self.data = folder / "data"
        self.grpc, self.http = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self.config = folder / "collector.toml"
        self.config.write_text(config)
        self._running = ExitStack()
        self._program: Program | None = None
        self._starts = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, **settings: str) -> None:
        """Starts a collector where none runs; settings are those of its configuration file, as variables."""
        self._starts += 1
        where = ("--data", self.data, "--grpc", self.grpc, "--http", self.http)
        self._program = self._running.enter_context(
            start(
                f"collector-{self._starts}",
                (_INTROSPAN, "collector", "--config", self.config, *where),
                {f"INTROSPAN_COLLECTOR_{name}": value for name, value in settings.items()},
                self.folder,
                _STOP_SECONDS,
            )
        )
        until_answering(self.program, f"http://{self.http}/readyz")

    @property
    def program(self) -> Program:
        """The process that runs, or ran last."""
        assert self._program is not None, "no collector was started here yet"
        return self._program

    @property
    def pid(self) -> int:
        return self.program.process.pid

    def signal(self, number: signal.Signals) -> None:
        self.program.process.send_signal(number)

    def stop(self) -> int | None:
        """Ends the collector as an operator would, or waits for one that has ended; its exit code, if any ran."""
        self._running.close()
        return None if self._program is None else self._program.process.returncode

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.stop()

    def output(self) -> str:
        """What the collector that runs, or ran last, has printed so far."""
        return self.program.log.read_text()

    def get(self, path: str, accept: str = "text/plain", **parameters: str) -> httpx.Response:
        """What it answers on HTTP."""
        url = f"http://{self.http}{path}"
        answer = httpx.get(url, params=parameters, headers={"accept": accept}, timeout=10)
        return answer.raise_for_status()

    def samples(self, name: str) -> dict[str, float]:
        """Samples of one metric, by their labels as text."""
        lines = self.get("/metrics").text.splitlines()
        mine = (line.rsplit(" ", 1) for line in lines if line.startswith((f"{name}{{", f"{name} ")))
        return {text.removeprefix(name): float(value) for text, value in mine}

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of a metric that have these labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            value for text, value in self.samples(name).items() if all(label in text for label in wanted)
        )

    def wait_processed(self) -> None:
        """Returns once everything in the log is processed."""
        eventually(lambda: not self.metric("introspan_collector_lag_bytes"), 30, poll_seconds=0.05)

    def observations(self, *options: str) -> list[dict[str, Any]]:
        """What `introspan observations` prints, whether the collector runs or not."""
        command = (_INTROSPAN, "observations", "--data", self.data, "--format", "jsonl", *options)
        done = subprocess.run(command, capture_output=True, check=True, text=True, env=os.environ)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def resident_bytes(self) -> int:
        """Memory of the process that is in RAM."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()

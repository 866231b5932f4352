"""A model in; vLLM serving it, the collector that vLLM feeds and the Prometheus that scrapes it out, all real.

The vLLM server is unmodified and has no flag of ours: its environment names the collector, nothing else.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.processes import Program, start

MODEL = "smollm2"
_INTROSPAN = Path(sys.executable).with_name("introspan")
_STOP_SECONDS = 20.0
_VLLM_START_SECONDS = 600.0
_VLLM_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    # Longer than a busy machine needs to start a collector again: what a short outage may lose is nothing.
    "INTROSPAN_TIMEOUT": "60",
}


def eventually(claim: Callable[[], Any], within_seconds: float = 60.0) -> Any:
    """What claim returns, once that is true; its last failure if it never is."""
    until = time.monotonic() + within_seconds
    while True:
        try:
            value = claim()
        except (httpx.HTTPError, AssertionError):
            if time.monotonic() > until:
                raise
        else:
            if value:
                return value
            assert time.monotonic() < until, f"still {value!r} after {within_seconds} s"
        time.sleep(0.2)


@dataclass
class Deployment:
    """The processes of one deployment; the collector may be ended and started again on the same data."""

    folder: Path
    grpc: str
    http: str
    vllm: str
    prometheus: str
    collector: Program = field(init=False)
    _running: ExitStack = field(default_factory=ExitStack)
    _collectors: int = 0

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start_collector(self, **settings: str) -> None:
        """Starts a collector where none runs; settings are those of its configuration file, as variables."""
        command = (_INTROSPAN, "collector", "--data", self.data, "--grpc", self.grpc, "--http", self.http)
        # Sooner than by default, so that nobody waits for half a minute.
        settings = {"ARCHIVE__FLUSH_SECONDS": "3", **settings}
        environment = {f"INTROSPAN_COLLECTOR_{name}": value for name, value in settings.items()}
        self._collectors += 1
        name = f"collector-{self._collectors}"
        self.collector = self._running.enter_context(
            start(name, command, environment, self.folder, _STOP_SECONDS)
        )
        _until_answering(self.collector, f"http://{self.http}/readyz", 60)

    def stop_collector(self) -> None:
        """Ends the collector as an operator would; waits for one that is ended already."""
        self._running.close()

    def signal_collector(self, number: signal.Signals) -> None:
        os.killpg(self.collector.process.pid, number)

    def metrics(self) -> str:
        return httpx.get(f"http://{self.http}/metrics", timeout=10).raise_for_status().text

    def samples(self, name: str) -> dict[str, float]:
        """Samples of one metric, by their labels as text."""
        lines = (line for line in self.metrics().splitlines() if line.startswith((f"{name}{{", f"{name} ")))
        return {
            text.removeprefix(name): float(value) for text, value in (one.rsplit(" ", 1) for one in lines)
        }

    def query(self, path: str, **parameters: str | float) -> Any:
        """An answer of Prometheus' HTTP API."""
        got = httpx.get(f"http://{self.prometheus}/api/v1/{path}", params=parameters, timeout=10).json()
        assert got["status"] == "success", got
        return got["data"]

    def observations(self, *options: str) -> list[dict[str, Any]]:
        """What `introspan observations` prints, while everything runs."""
        command = (_INTROSPAN, "observations", "--data", self.data, "--format", "jsonl", *options)
        done = subprocess.run(command, capture_output=True, check=True, text=True, env=os.environ)
        return [json.loads(line) for line in done.stdout.splitlines()]


@contextmanager
def deployed(
    folder: Path, model: Path, free_port: Callable[[], int], prometheus: Path
) -> Iterator[Deployment]:
    """A deployment that answers on every address."""
    grpc, http, vllm, scraper = (f"127.0.0.1:{free_port()}" for _ in range(4))
    running = Deployment(folder, grpc, http, vllm, scraper)
    with ExitStack() as others:
        others.callback(running.stop_collector)
        running.start_collector()
        others.enter_context(_prometheus(running, prometheus))
        others.enter_context(serving(running, model))
        yield running


@contextmanager
def serving(running: Deployment, model: Path) -> Iterator[Program]:
    """The server as anybody would start it."""
    host, port = running.vllm.split(":")
    command = (
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", model, "--served-model-name", MODEL),
        *("--dtype", "float32", "--enforce-eager", "--max-model-len", "2048"),
        *("--host", host, "--port", port),
    )
    environment = {**_VLLM_ENVIRONMENT, "INTROSPAN_ENDPOINT": running.grpc}
    with start("vllm", command, environment, running.folder, _STOP_SECONDS) as program:
        _until_answering(program, f"http://{running.vllm}/health", _VLLM_START_SECONDS)
        yield program


@contextmanager
def _prometheus(running: Deployment, program: Path) -> Iterator[None]:
    configuration = running.folder / "prometheus.yml"
    configuration.write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        f"scrape_configs: [{{job_name: introspan, static_configs: [{{targets: ['{running.http}']}}]}}]\n"
    )
    command = (
        program,
        f"--config.file={configuration}",
        f"--storage.tsdb.path={running.folder / 'tsdb'}",
        f"--web.listen-address={running.prometheus}",
        "--enable-feature=exemplar-storage",
    )
    with start("prometheus", command, {}, running.folder, _STOP_SECONDS) as started:
        _until_answering(started, f"http://{running.prometheus}/-/ready", 60)
        yield


def _until_answering(program: Program, address: str, within_seconds: float) -> None:
    def answers() -> bool:
        if program.ended():
            pytest.fail(f"{program.name} ended:\n{program.log_tail(40)}", pytrace=False)
        return httpx.get(address, timeout=5).status_code == httpx.codes.OK

    try:
        eventually(answers, within_seconds)
    except (httpx.HTTPError, AssertionError) as error:
        pytest.fail(f"{program.name}: {error}\n{program.log_tail(40)}", pytrace=False)

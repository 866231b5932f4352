"""A model in; vLLM serving it, the collector that vLLM feeds and the Prometheus that scrapes it out, all real.

The vLLM server is unmodified and has no flag of ours: its environment names the collector, nothing else.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import host
from forking import ServerOrder

from demo.processes import start
from tests.collector import Collector
from tests.patience import until_answering
from tests.prometheus import scraping

MODEL = "smollm2"
# Sooner than by default, so that nobody waits for half a minute.
CONFIG = "[archive]\nflush_seconds = 3\n"
# vLLM leaves requests that are under way unanswered when it is told to end, and waits for their connections for ever.
_STOP_SECONDS = 4.0
_START_SECONDS = 600.0
_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    # Left to itself every server here would bind to the same core.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    # Longer than a busy machine needs to start a collector again: what a short outage may lose is nothing.
    "INTROSPAN_TIMEOUT": "60",
}


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is running: the collector, the address of vLLM, and Prometheus as a function that asks its API."""

    collector: Collector
    vllm: str
    query: Callable[..., Any]


@contextmanager
def deployed(
    folder: Path, model: Path, free_port: Callable[[], int], prometheus: Path
) -> Iterator[Deployment]:
    """A deployment that answers on every address."""
    with (
        Collector(folder, free_port, CONFIG) as collector,
        scraping(collector.http, folder, prometheus, free_port()) as query,
        serving(model, folder, free_port(), {"INTROSPAN_ENDPOINT": collector.grpc}) as vllm,
    ):
        yield Deployment(collector, vllm, query)


@contextmanager
def serving(
    model: Path,
    folder: Path,
    port: int,
    environment: Mapping[str, str],
    name: str = "vllm",
    more: Sequence[str] = (),
) -> Iterator[str]:
    """The address of a server as anybody would start it, with more options; folder takes its log, under its name."""
    command = (sys.executable, "-m", "vllm.entrypoints.openai.api_server", *_options(model, port), *more)
    with start(name, command, {**_ENVIRONMENT, **environment}, folder, _STOP_SECONDS) as program:
        until_answering(program, f"http://127.0.0.1:{port}/health", _START_SECONDS)
        yield f"127.0.0.1:{port}"


@contextmanager
def serving_soon(
    model: Path,
    folder: Path,
    port: int,
    environment: Mapping[str, str],
    name: str = "vllm",
    more: Sequence[str] = (),
) -> Iterator[str]:
    """The address of the same server a minute sooner: its processes are forked off one that has imported vLLM."""
    environ = {**os.environ, **_ENVIRONMENT, **environment}
    order = ServerOrder([*_options(model, port), *more], str(folder / f"{name}.log"), environ)
    with host().serving(name, order, _STOP_SECONDS) as program:
        until_answering(program, f"http://127.0.0.1:{port}/health", _START_SECONDS)
        yield f"127.0.0.1:{port}"


def _options(model: Path, port: int) -> list[str]:
    return [
        *("--model", str(model), "--served-model-name", MODEL),
        *("--dtype", "float32", "--enforce-eager", "--max-model-len", "2048"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]

"""A model and an environment in; a vLLM engine in a process of its own, which does work and says its cost, out."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

_END_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Load:
    """A batch of requests, each of which decodes so many tokens behind a context of drawn ones, or a short question."""

    batch: int
    tokens: int
    context: int = 0


class Engine:
    """Takes one piece of work at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._answer()

    # Any: measured numbers, as JSON.
    def work(self, load: Load, rate: int, *, export: bool = True, hooked: bool = True) -> dict[str, Any]:
        """What it cost to decode the load's tokens.

        rate: the share of requests that is measured; export: whether what is measured goes to the collector; hooked:
        whether Introspan is in the engine at all, which only an eager one can do without.
        """
        work = _pipe(self._process.stdin)
        wanted = asdict(load) | {"rate": rate, "export": export, "hooked": hooked}
        work.write(json.dumps(wanted) + "\n")
        work.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = _pipe(self._process.stdout).readline()
        if not line:
            code = self._process.wait(_END_SECONDS)
            raise RuntimeError(f"the engine ended with {code}; its command was {self._process.args!r}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def running(model: Path, mode: str, env: Mapping[str, str]) -> Iterator[Engine]:
    """An engine that is ready, ended on leaving. mode: eager or compiled; env is added to ours."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("INTROSPAN_", "OTEL_"))} | dict(env)
    # One thread a process: the spinning of idle OpenMP threads would be counted as work.
    environ["OMP_NUM_THREADS"] = "1"
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.cost_engine", model, mode],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield Engine(process)
    finally:
        _pipe(process.stdin).close()
        process.wait(_END_SECONDS)


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None, "the engine was started with pipes"
    return pipe

"""A model and what rides along in, an engine in a process of its own out, which takes one order after another."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu.scale import Scale

EVERYTHING = {
    "INTROSPAN_LAYERS": "all",
    "INTROSPAN_ATTENTION_LAYERS": "all",
    "INTROSPAN_TOKEN_STRIDE": "1",
    "INTROSPAN_ROW_BUDGET": "1000000",
}
ENDPOINT = {"INTROSPAN_ENDPOINT": "127.0.0.1:1"}
"""Capture is on; what is measured stays in memory, so that nobody need listen."""

ABSENT = {"VLLM_PLUGINS": "none"}
"""No plugin at all: the engine as it is without Introspan."""

_END_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Kind:
    """What an engine is. env: what is added to the environment; engine: arguments of vLLM's LLM.

    rows: what is measured is kept in memory, engine and worker being one process then; hooks: see hooks.py; watch:
    "times" or "waits", what is looked at of our own work where rows are kept, see watched.py; log: a file that takes
    what the engine prints.
    """

    model: Path
    env: Mapping[str, str] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)  # Any: arguments of vLLM's LLM
    rows: bool = False
    hooks: bool = False
    watch: str = ""
    log: Path | None = None


class Served:
    """An engine that takes orders; see program.py."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._answer()

    # Any: JSON, as in all of what follows.
    def work(self, batch: int, context: int, tokens: int, seed: int) -> dict[str, Any]:
        """When the tokens of so many requests came."""
        return self._ask("work", batch=batch, context=context, tokens=tokens, seed=seed)

    def answers(self, prompts: list[list[int]], tokens: int) -> dict[str, Any]:
        """The likeliest tokens behind prompts, and their log-probabilities."""
        return self._ask("answers", prompts=prompts, tokens=tokens)

    def together(self, requests: list[dict[str, Any]]) -> dict[str, list[int]]:
        """Tokens by name of requests that are served at once: each has a name, a prompt, and params of sampling."""
        said: dict[str, list[int]] = self._ask("together", requests=requests)["tokens"]
        return said

    def state(self) -> dict[str, Any]:
        """What the engine is, and the memory of its worker."""
        return self._ask("state")

    def watched(self, *, anew: bool = False) -> dict[str, Any]:
        """What was seen of our own work; see watched.py."""
        return self._ask("watched", anew=anew)

    def fall(self) -> dict[str, Any]:
        """Takes it to the next rung of the ladder."""
        return self._ask("fall")

    def rows(self) -> "Measured":
        """What was measured so far."""
        with tempfile.TemporaryDirectory() as scratch:
            into = Path(scratch, "rows.npz")
            self._ask("rows", into=str(into))
            with np.load(into, allow_pickle=False) as loaded:
                return Measured(
                    [tuple(column) for column in json.loads(str(loaded["columns"]))],
                    json.loads(str(loaded["ids"])),
                    loaded["positions"],
                    loaded["values"],
                )

    def _ask(self, order: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"order": order, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait(_END_SECONDS)
            raise RuntimeError(f"the engine ended with {code}; its command was {self._process.args!r}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@dataclass(frozen=True, slots=True)
class Measured:
    """Measured rows: columns (signal, layer, head, component), whose, where, and values [rows, columns]."""

    columns: list[tuple[Any, ...]]
    ids: list[str]
    positions: np.ndarray[Any, np.dtype[np.int64]]
    values: np.ndarray[Any, np.dtype[np.float32]]

    def of(self, request: str, signal: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """One signal of one request, [rows, its columns], in order of position."""
        mine = [i for i, name in enumerate(self.ids) if name == request]
        mine.sort(key=lambda i: int(self.positions[i]))
        columns = [i for i, column in enumerate(self.columns) if column[0] == signal]
        return self.values[np.ix_(mine, columns)]


@contextmanager
def serving(kind: Kind, scale: Scale) -> Iterator[Served]:
    """An engine that is ready, ended on leaving."""
    environ = {
        k: v for k, v in os.environ.items() if not k.startswith(("INTROSPAN_", "OTEL_", "VLLM_PLUGINS"))
    }
    environ |= scale.env | dict(kind.env)
    if kind.rows:
        environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    with tempfile.TemporaryDirectory() as scratch:
        given = Path(scratch, "engine.json")
        engine = {"dtype": scale.dtype, **scale.engine, **kind.engine}
        given.write_text(
            json.dumps(
                {
                    "model": str(kind.model),
                    "engine": engine,
                    "rows": kind.rows,
                    "hooks": kind.hooks,
                    "watch": kind.watch,
                }
            )
        )
        said = Path(scratch, "log") if kind.log is None else kind.log
        with said.open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.gpu.program", given],
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            try:
                yield _ready(process, said)
            finally:
                assert process.stdin is not None
                with suppress(BrokenPipeError):  # it has ended, and an order never reached it
                    process.stdin.close()
                process.wait(_END_SECONDS)


def _ready(process: subprocess.Popen[str], said: Path) -> Served:
    try:
        return Served(process)
    except RuntimeError as error:
        raise RuntimeError(f"{error}:\n{said.read_text(errors='replace')[-4000:]}") from None

"""A schedule of requests in; what a real vLLM engine answered and what capture measured of it out.

Every engine has a process and an environment of its own.
"""

import functools
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from forking import Host, Order

QUIET = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # Threads of a parallel region wait for one another; on a busy machine of two cores one thread is faster.
    "OMP_NUM_THREADS": "1",
    # Processes that compile for others do not outlive a fork.
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1",
}
EVERYTHING = {
    "INTROSPAN_ENDPOINT": "127.0.0.1:1",
    "INTROSPAN_TOKEN_STRIDE": "1",
    "INTROSPAN_LAYERS": "all",
    "INTROSPAN_ATTENTION_LAYERS": "all",
    "INTROSPAN_ATTENTION_BYTES": "1GiB",
    "INTROSPAN_ROW_BUDGET": "1000000",
}


@dataclass
class Call:
    """One request: prompt token ids, sampling parameters, the step it arrives at and the one it is aborted at.

    adapter is the folder of a LoRA adapter, whose name is the folder's.
    """

    id: str
    prompt: list[int]
    params: dict[str, Any] = field(default_factory=dict)
    at: int = 0
    abort_at: int | None = None
    adapter: str = ""


@dataclass
class Run:
    """What one engine is to do. before is a line of Python that is executed before the engine starts.

    rpcs: before which step what method of the worker is called, with which arguments by name. takes_leave: whether
    what the pipeline holds is sent at the end, as when a worker ends.
    """

    model: str
    calls: list[Call]
    engine: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    pipeline: str = (
        "rows"  # rows: keep in memory; real: export to INTROSPAN_ENDPOINT; none: plugin not loaded
    )
    before: str = ""
    rpcs: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)
    takes_leave: bool = False


@dataclass
class Result:
    """Answers by request id (one list a sample), and the measured rows: who, where, values [rows, columns].

    row_models: how often the model had changed before each row; fingerprints: what it then was.
    """

    tokens: dict[str, list[list[int]]]
    logprobs: dict[str, list[list[dict[str, float]]]]
    cached: dict[str, int]
    columns: list[tuple[str, int, int, int]]
    row_ids: list[str]
    row_positions: np.ndarray
    values: np.ndarray
    hashes: dict[str, int]
    seeds: dict[str, int]
    ended: dict[str, int]
    adapters: dict[str, str]
    fingerprints: list[str]
    row_models: list[int]
    preemptions: int
    status: dict[str, Any]
    resource: dict[str, Any]
    stderr: str

    def block(self, signal: str) -> np.ndarray:
        """Columns of a signal, float32 [rows, its columns]."""
        return self.values[:, [i for i, column in enumerate(self.columns) if column[0] == signal]]

    def rows_of(self, request_id: str) -> np.ndarray:
        """Indices of a request's rows, in order of position."""
        mine = [i for i, name in enumerate(self.row_ids) if name == request_id]
        return np.array(sorted(mine, key=lambda i: self.row_positions[i]), np.int64)


def run(task: Run, directory: Path, timeout_seconds: float = 600) -> Result:
    """Runs one engine to its end. Raises AssertionError with the engine's output where it fails."""
    directory.mkdir(parents=True, exist_ok=True)
    given, out, said = directory / "run.json", directory / "result.npz", directory / "stderr"
    given.write_text(json.dumps(asdict(task)))
    environ = _environment() | task.env | ({"VLLM_PLUGINS": "none"} if task.pipeline == "none" else {})
    code = host().run(Order(str(given), str(out), str(said), environ), timeout_seconds)
    stderr = said.read_text()
    assert code == 0, f"the engine ended with {code}:\n{stderr[-6000:]}"
    with np.load(out, allow_pickle=False) as loaded:
        meta = json.loads(str(loaded["meta"]))
        return Result(
            row_positions=loaded["positions"],
            values=loaded["values"],
            stderr=stderr,
            columns=[tuple(column) for column in meta.pop("columns")],
            **meta,
        )


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("INTROSPAN_", "OTEL_"))} | QUIET


@functools.cache
def host() -> Host:
    """The process that this process's engines and servers are forked off."""
    return Host(_environment())

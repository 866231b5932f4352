"""A schedule of requests in; what a real vLLM engine answered and what capture measured of it out.

Every engine has a process and an environment of its own. Those processes are forked off one that has imported vLLM
before, which takes longer than many a test: run as a program, this file is that process.
"""

import functools
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

QUIET = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # Threads of a parallel region wait for one another; on a busy machine of two cores one thread is faster.
    "OMP_NUM_THREADS": "1",
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

    rpcs: before which step what method of the worker is called, with which arguments by name.
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
    code = _host().run(Order(str(given), str(out), str(said), environ), timeout_seconds)
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


@dataclass(frozen=True, slots=True)
class Order:
    """One engine to fork: the files of its run, its result and its messages, and its whole environment."""

    given: str
    out: str
    stderr: str
    environ: dict[str, str]


class Host:
    """The process that engines are forked off. It ends with the tests, as its standard input does then."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def run(self, order: Order, timeout_seconds: float) -> int:
        """The exit code of the engine, negative where a signal ended it; after the time-out it is killed."""
        given, taken = self._process.stdin, self._process.stdout
        assert given is not None
        assert taken is not None
        given.write(json.dumps(asdict(order)) + "\n")
        pid = int(taken.readline())
        if not select.select([taken], [], [], timeout_seconds)[0]:
            os.kill(pid, signal.SIGKILL)
        return int(taken.readline())


@functools.cache
def _host() -> Host:
    return Host()


def serve() -> None:
    """Forks an engine for each order that comes in, one after another."""
    import vllm.v1.worker.cpu_worker  # noqa: F401 - what every engine imports
    from vllm import LLM  # noqa: F401 - the same

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    # What an engine prints is no answer.
    os.dup2(2, 1)
    for line in sys.stdin:
        order = Order(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            os._exit(_forked(order))
        print(pid, file=answers)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=answers)


def _forked(order: Order) -> int:
    said = os.open(order.stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(said, stream)
    os.environ.clear()
    os.environ.update(order.environ)
    try:
        main(Path(order.given), Path(order.out))
    except BaseException:  # noqa: BLE001 - the test says what it was
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def main(given: Path, out: Path) -> None:
    """Drives the engine."""
    task = Run(**json.loads(given.read_text()))
    calls = [Call(**call) for call in task.calls]  # type: ignore[arg-type]  # dictionaries, as read from JSON
    if task.before:
        exec(task.before, {})
    log = None
    if task.pipeline == "rows":
        from introspan import plugin
        from introspan.testing import RowLog

        plugin.register(RowLog)
    from vllm import LLM

    engine = LLM(task.model, **({"dtype": "float32", "enforce_eager": True} | task.engine)).llm_engine
    if task.pipeline == "rows":
        log = RowLog.opened[0]
    counted = _count_preemptions()
    tokens, logprobs, cached = _drive(engine, calls, task.rpcs)
    kept = log.kept if log is not None else []
    meta = {
        "tokens": tokens,
        "logprobs": logprobs,
        "cached": cached,
        "columns": log.columns if log is not None else [],
        "row_ids": [request.request_id for rows in kept for request in rows.requests],
        "hashes": {request.request_id: request.hash for rows in kept for request in rows.requests},
        "ended": {request.request_id: last for request, last in log.ended.values()}
        if log is not None
        else {},
        "adapters": {request.request_id: request.adapter for rows in kept for request in rows.requests},
        "fingerprints": [name for _, name in log.fingerprints] if log is not None else [],
        "row_models": [
            sum(before <= i for before, _ in log.fingerprints)
            for i, rows in enumerate(kept)
            for _ in rows.requests
        ],
        "preemptions": counted[0],
        "status": asdict(log.status()) if log is not None else {},
        "resource": asdict(log.resource) if log is not None else {},
    }
    width = len(log.columns) if log is not None else 0
    np.savez(
        out,
        meta=json.dumps(meta),
        positions=np.concatenate([rows.position for rows in kept]) if kept else np.zeros(0, np.int64),
        values=np.concatenate([rows.values for rows in kept]) if kept else np.zeros((0, width), np.float32),
    )


def _count_preemptions() -> list[int]:
    """A list whose first entry counts, from now on, how often the scheduler put a request back."""
    from vllm.v1.core.sched.scheduler import Scheduler

    original, counted = Scheduler._preempt_request, [0]

    def preempt(*args: Any, **kwargs: Any) -> Any:
        counted[0] += 1
        return original(*args, **kwargs)

    Scheduler._preempt_request = preempt
    return counted


def _drive(
    engine: Any, calls: list[Call], rpcs: list[tuple[int, str, dict[str, Any]]]
) -> tuple[dict, dict, dict]:
    from vllm import SamplingParams

    tokens, logprobs, cached = {}, {}, {}
    waiting, step = list(calls), 0
    numbers = {name: i for i, name in enumerate(sorted({call.adapter for call in calls} - {""}), start=1)}
    while waiting or engine.has_unfinished_requests() or any(at >= step for at, _, _ in rpcs):
        for at, method, kwargs in rpcs:
            if at == step:
                engine.collective_rpc(method, kwargs=kwargs)
        for call in [call for call in waiting if call.at <= step]:
            bias = call.params.get("logit_bias")  # its keys have become text in JSON
            given = call.params | ({"logit_bias": {int(k): v for k, v in bias.items()}} if bias else {})
            engine.add_request(
                call.id,
                {"prompt_token_ids": call.prompt},
                SamplingParams(**given),
                lora_request=_lora(call.adapter, numbers),
            )
            waiting.remove(call)
        engine.abort_request([call.id for call in calls if call.abort_at == step])
        for output in engine.step():
            cached[output.request_id] = output.num_cached_tokens or 0
            for sample in output.outputs:
                tokens.setdefault(output.request_id, {})[sample.index] = list(sample.token_ids)
                logprobs.setdefault(output.request_id, {})[sample.index] = [
                    {str(token): entry.logprob for token, entry in position.items()}
                    for position in (sample.logprobs or [])
                ]
        step += 1
    # One more request, so that the worker hears that the others are finished.
    engine.add_request("last", {"prompt_token_ids": [1]}, SamplingParams(max_tokens=2, temperature=0))
    while engine.has_unfinished_requests():
        engine.step()
    in_order = lambda found: {key: [found[key][i] for i in sorted(found[key])] for key in found}  # noqa: E731
    return in_order(tokens), in_order(logprobs), cached


def _lora(adapter: str, numbers: dict[str, int]) -> Any:
    from vllm.lora.request import LoRARequest

    return LoRARequest(Path(adapter).name, numbers[adapter], adapter) if adapter else None


if __name__ == "__main__":
    serve()

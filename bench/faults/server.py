"""A model's folder in, vLLM's OpenAI server with it out, and what a real collector says of rounds of its canary."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from bench.collector import Running
from bench.faults.gather import BLOCK_TOKENS
from bench.faults.result import Claim
from demo.processes import Program, start
from introspan_collector.testing import free_address

NAME = "smollm2"
"""Under which the model is served."""

_SECRET = "a secret of this bench and its server"  # noqa: S105 it guards nothing
_ROOT = Path(__file__).parent.parent.parent
_INTROSPAN = Path(sys.executable).with_name("introspan")
_START_SECONDS, _STOP_SECONDS, _ROUND_SECONDS = 600.0, 20.0, 300.0
_PLUGIN = """\
from pathlib import Path

from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from bench.faults.engine_faults import CacheFault


def register():
    right, faults = GPUModelRunner.execute_model, {{}}

    def execute_model(self, *args, **kwargs):
        found = right(self, *args, **kwargs)
        flag = Path({flag!r})
        name = flag.read_text() if flag.exists() else ""
        faults.setdefault(name, CacheFault(name, self)).after_step({block})
        return found

    GPUModelRunner.execute_model = execute_model
"""
_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "INTROSPAN_REPLICA": "replica-0",
    "INTROSPAN_CANARY_KEY": _SECRET,
}
# Any: JSON.
Found = dict[str, Any]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Observed:
    """A running collector, and a folder for logs and keys."""

    running: Running
    folder: Path

    def rounds(self, address: str, count: int) -> list[Found]:
        """What the collector says of so many rounds that are asked now, one after another."""
        return [self._round(address) for _ in range(count)]

    @contextmanager
    def server(self, model: Path, environment: Mapping[str, str], *flags: str) -> Iterator[str]:
        """The address of a server that exports to the collector, ended on leaving."""
        address = free_address()
        command = (
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", str(model), "--served-model-name", NAME, "--dtype", "float32", "--enforce-eager"),
            *("--max-model-len", "2048", "--block-size", str(BLOCK_TOKENS)),
            *("--host", "127.0.0.1", "--port", address.rpartition(":")[2], *flags),
        )
        environment = {**environment, "INTROSPAN_ENDPOINT": self.running.grpc}
        with start("vllm", command, environment, self.folder, _STOP_SECONDS) as program:
            _once(lambda: _answers(program, address), _START_SECONDS)
            yield address

    def _round(self, address: str) -> Found:
        key = self.folder / "key"
        key.write_text(_SECRET)
        before = self._last().get("time")
        command = [str(_INTROSPAN), "canary", "--url", f"http://{address}", "--collector", self.running.grpc]
        command += ["--rounds", "1", "--interval", "0s", "--key-file", str(key)]
        subprocess.run(command, check=True, timeout=_ROUND_SECONDS)
        return _once(lambda: None if (found := self._last()).get("time") == before else found, _ROUND_SECONDS)

    def _last(self) -> Found:
        replicas: list[Found] = self.running.get("/api/v1/canaries").json().get("canaries", [])
        return replicas[0]["replicas"][0] if replicas and replicas[0]["replicas"] else {}


def plugin(folder: Path) -> tuple[Path, dict[str, str]]:
    """A plugin of vLLM's: the file that holds the fault's name, and the environment that has vLLM load it."""
    flag = folder / "fault"
    metadata = folder / "bench_cache_fault-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-cache-fault\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(
        "[vllm.general_plugins]\nbench_cache_fault = bench_cache_fault:register\n"
    )
    (folder / "bench_cache_fault.py").write_text(_PLUGIN.format(flag=str(flag), block=BLOCK_TOKENS))
    # Ours too: the server is to run the same code as what is asking it.
    places = (str(folder), str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")]))
    return flag, {**_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(places)}


def floors(value: float | None) -> float:
    """JSON knows no infinity: the API has null for it."""
    return float("inf") if value is None else float(value)


def _answers(program: Program, address: str) -> bool | None:
    if program.ended():
        raise ChildProcessError(f"the server ended:\n{program.log_tail(40)}")
    with contextlib.suppress(httpx.TransportError):  # not listening yet
        return True if httpx.get(f"http://{address}/health", timeout=5).is_success else None
    return None


def _once(found: Callable[[], _T | None], within_seconds: float) -> _T:
    """What is found, as soon as it is there."""
    until = time.monotonic() + within_seconds
    while time.monotonic() < until:
        if (one := found()) is not None:
            return one
        time.sleep(0.2)
    raise TimeoutError(f"nothing came within {within_seconds:g} s")


def told_by_canary(text: str, told: Sequence[bool], wanted: int, target: float, row: str) -> Claim:
    """The claim that the canary of a vLLM server tells faults; told: of each that ran, of so many that are wanted."""
    text = f"{text} in a vLLM server, told by its canary ({sum(told)} of {len(told)})"
    measured = sum(told) / len(told) if told else None
    return Claim(text, measured, target, is_complete=len(told) == wanted, row=row)

"""A real vLLM server in which something is done to the cache or the chat template in, what its canary says out."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import httpx

from bench.collector import Running, collector
from bench.faults.gather import BLOCK_TOKENS
from bench.faults.ledger import Ledger
from bench.faults.result import Cell, Claim, Result, Table
from bench.faults.rows import CACHE, TEXT
from bench.faults.second_protocol import SECOND, check_second_seal, second_digest
from bench.faults.workplace import Workplace
from demo.model import cache_folder, prepare
from demo.processes import Program, start
from introspan_collector.testing import free_address

_SERVED: Mapping[str, Any] = SECOND["served"]  # Any: JSON
_TEMPLATE = "chat template"
_HEALTHY = "nothing"
_SECRET = "a secret of this bench and its server"  # noqa: S105 it guards nothing
_ROOT = Path(__file__).parent.parent.parent
_INTROSPAN = Path(sys.executable).with_name("introspan")
_START_SECONDS, _STOP_SECONDS, _ROUND_SECONDS = 600.0, 20.0, 300.0
_OTHER_TEMPLATE = """\
{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}
{% endfor %}assistant:"""
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


def run(workplace: Workplace) -> Result:
    """Every fault that an earlier run did not finish; then what was found of all."""
    check_second_seal()
    ledger = Ledger(workplace.folder / f"served-{second_digest()[:12]}.jsonl")
    wanted = (_HEALTHY, *_SERVED["faults"])
    if workplace.may_run and any(fault not in ledger for fault in wanted):
        with TemporaryDirectory() as folder:
            _measure(Path(folder), ledger, workplace)
    return report({fault: ledger[fault] for fault in wanted if fault in ledger})


def _measure(folder: Path, ledger: Ledger, workplace: Workplace) -> None:
    say = workplace.progress.console.print
    model = prepare(cache_folder(), say)
    flag, environment = _plugin(folder)
    template = folder / "other.jinja"
    template.write_text(_OTHER_TEMPLATE)
    config = f"[detect]\ncanary_rounds = {_SERVED['baseline_rounds']}\n"
    with collector(folder, config) as running:
        environment["INTROSPAN_ENDPOINT"] = running.grpc
        with _server(model, folder, environment) as address:
            for _ in range(_SERVED["baseline_rounds"]):
                _round(address, running, folder)
            for fault in (_HEALTHY, *(one for one in _SERVED["faults"] if one != _TEMPLATE)):
                flag.write_text(fault)
                ledger.put(fault, _rounds(address, running, folder))
                say(f"served, {fault}: {[one['ratio'] for one in ledger[fault]]} floors")
        flag.unlink()
        with _server(model, folder, environment, "--chat-template", str(template)) as address:
            ledger.put(_TEMPLATE, _rounds(address, running, folder))


def _plugin(folder: Path) -> tuple[Path, dict[str, str]]:
    """A plugin of vLLM's: the file that holds the fault's name, and the environment that has vLLM load it."""
    flag = folder / "fault"
    metadata = folder / "bench_cache_fault-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-cache-fault\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(
        "[vllm.general_plugins]\nbench_cache_fault = bench_cache_fault:register\n"
    )
    (folder / "bench_cache_fault.py").write_text(_PLUGIN.format(flag=str(flag), block=BLOCK_TOKENS))
    return flag, {**_ENVIRONMENT, "PYTHONPATH": os.pathsep.join((str(folder), str(_ROOT)))}


@contextmanager
def _server(model: Path, folder: Path, environment: Mapping[str, str], *flags: str) -> Iterator[str]:
    address = free_address()
    command = (
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(model), "--served-model-name", "smollm2", "--dtype", "float32", "--enforce-eager"),
        *("--max-model-len", "2048", "--block-size", str(BLOCK_TOKENS)),
        *("--host", "127.0.0.1", "--port", address.rpartition(":")[2], *flags),
    )
    with start("vllm", command, environment, folder, _STOP_SECONDS) as program:
        _once(lambda: _answers(program, address), _START_SECONDS)
        yield address


def _answers(program: Program, address: str) -> bool | None:
    if program.ended():
        raise ChildProcessError(f"the server ended:\n{program.log_tail(40)}")
    with contextlib.suppress(httpx.TransportError):  # not listening yet
        return True if httpx.get(f"http://{address}/health", timeout=5).is_success else None
    return None


def _rounds(address: str, running: Running, folder: Path) -> list[Found]:
    return [_round(address, running, folder) for _ in range(_SERVED["rounds_of_a_fault"])]


def _round(address: str, running: Running, folder: Path) -> Found:
    """What the collector says of a round that is asked now."""
    key = folder / "key"
    key.write_text(_SECRET)
    before = _last(running).get("time")
    command = [str(_INTROSPAN), "canary", "--url", f"http://{address}", "--collector", running.grpc]
    command += ["--rounds", "1", "--interval", "0s", "--key-file", str(key)]
    subprocess.run(command, check=True, timeout=_ROUND_SECONDS)
    return _once(lambda: None if (found := _last(running)).get("time") == before else found, _ROUND_SECONDS)


def _last(running: Running) -> Found:
    replicas: list[Found] = running.get("/api/v1/canaries").json().get("canaries", [])
    return replicas[0]["replicas"][0] if replicas and replicas[0]["replicas"] else {}


def _once(found: Callable[[], _T | None], within_seconds: float) -> _T:
    """What is found, as soon as it is there."""
    until = time.monotonic() + within_seconds
    while time.monotonic() < until:
        if (one := found()) is not None:
            return one
        time.sleep(0.2)
    raise TimeoutError(f"nothing came within {within_seconds:g} s")


def report(found: Mapping[str, Sequence[Found]]) -> Result:
    """The part's result, of as many faults as there are."""
    rows: list[list[Cell]] = [_row(fault, rounds) for fault, rounds in found.items()]
    claims = [
        *_claims("faults of the cache", [one for one in _SERVED["faults"] if one != _TEMPLATE], found, CACHE),
        *_claims("another chat template", [_TEMPLATE], found, TEXT),
    ]
    return Result(
        f"{len(found)} of {len(_SERVED['faults']) + 1} faults, nothing among them.",
        _NOTES,
        claims,
        [Table("Rounds", _COLUMNS, rows)],
        protocol=second_digest(),
    )


def _claims(
    text: str, faults: Sequence[str], found: Mapping[str, Sequence[Found]], row: str
) -> Iterator[Claim]:
    told = [_is_told(found[fault], row) for fault in faults if fault in found]
    text = f"{text} in a vLLM server, told by its canary ({sum(told)} of {len(told)})"
    measured = sum(told) / len(told) if told else None
    is_complete = len(told) == len(faults)
    yield Claim(text, measured, SECOND["targets"]["served_told"], is_complete=is_complete, row=row)


def _is_told(rounds: Sequence[Found], row: str) -> bool:
    return all(one["deviates"] for one in (rounds[:1] if row == TEXT else rounds))


_COLUMNS = (
    "fault", "round", "deviates", "floors, consistency", "floors, outputs", "floors, states", "what it names",
    "mean KL, nats",
)  # fmt: skip


def _row(fault: str, rounds: Sequence[Found]) -> list[Cell]:
    """The round that says least."""
    least = min(rounds, key=lambda one: _floors(one["ratio"]))
    return [
        fault, f"the weaker of {len(rounds)}", least["deviates"],
        _floors(least["consistency_ratio"]), _floors(least["output_ratio"]),
        max(map(_floors, least["layer_ratios"]), default=None),
        least["place"] or "nothing", _floors(least["kl_nats"]),
    ]  # fmt: skip


def _floors(value: float | None) -> float:
    """JSON knows no infinity: the API has null for it."""
    return float("inf") if value is None else float(value)


_NOTES = (
    (
        "vLLM's OpenAI server in float32 with the product's plugin, asked by `introspan canary` over HTTP, "
        "compared by a real collector with a baseline of 8 rounds: fewer than the 64 of production, so that "
        "floors mean less."
    ),
    (
        "kv-stale, kv-scaled: a plugin of the bench overwrites the second block of 32 tokens of a prompt that was "
        "read with what is elsewhere in the cache, or multiplies it by 1.5, in every layer; the repeated question "
        "then reads it from the prefix cache. Another chat template: the server is started with it."
    ),
    (
        "A damaged layer, a sampler at 1.5 times the temperature and a change of traffic go from fault to alert "
        "in a real server in `tests/e2e/test_detection.py`."
    ),
)

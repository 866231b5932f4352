"""Orders on standard input in, engines, programs and servers out: forked off this process, which has imported vLLM.

A program: forking.py starts it and knows its orders. What it answers is a number a line: of an engine or a program the
process and then its exit code, of a server the process, and its exit code once it was stopped.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

from driving import main
from forking import Order, ProgramOrder, ServerOrder, Stop

_ORDERS = {kind.__name__: kind for kind in (Order, ProgramOrder, ServerOrder, Stop)}
_IMPORTED = (
    "vllm.entrypoints.launchers.api_server.entry",
    "vllm.entrypoints.launchers.cli_args",
    "vllm.entrypoints.llm",
    "vllm.v1.engine.async_llm",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.worker.cpu_worker",
)
"""What every engine or server imports."""

_BECOME_PARENT_OF_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)
_POLL_SECONDS = 0.05


def serve() -> None:
    """Carries out one order after another."""
    for module in _IMPORTED:
        importlib.import_module(module)
    _compile()
    # What ends after its own parent is waited for here: nobody else would, where process 1 is no init.
    ctypes.CDLL(None).prctl(_BECOME_PARENT_OF_ORPHANS, 1, 0, 0, 0)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    # What an engine prints is no answer.
    os.dup2(2, 1)
    gc.freeze()  # every engine collects garbage several times, a quarter of a second each for what is imported here
    servers: set[int] = set()
    try:
        for line in sys.stdin:
            ((kind, given),) = json.loads(line).items()
            _carry_out(_ORDERS[kind](**given), servers, answers)
    finally:
        for pid in servers:
            _stop(Stop(pid, 0.0))


def _compile() -> None:
    """Compiles what every engine compiles before its first log-probabilities; for two vocabularies, and so for any."""
    import torch
    from vllm.v1.sample.sampler import Sampler

    with torch.inference_mode():
        for vocabulary in (512, 49_152):
            Sampler.gather_logprobs(torch.zeros(2, vocabulary), 1, torch.zeros(2, dtype=torch.int64))


def _carry_out(order: Order | ProgramOrder | ServerOrder | Stop, servers: set[int], answers: TextIO) -> None:
    if isinstance(order, Stop):
        servers.discard(order.pid)
        print(_stop(order), file=answers)
        return
    pid = os.fork()
    if pid == 0:
        answers.close()
        os._exit(_forked(order))
    print(pid, file=answers)
    if isinstance(order, ServerOrder):
        servers.add(pid)
    else:
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=answers)


def _stop(order: Stop) -> int:
    """Asks a server and what it has started to end, and ends them after a while; its exit code."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(order.pid, signal.SIGTERM)
    until = time.monotonic() + order.patience_seconds
    ended, status = os.waitpid(order.pid, os.WNOHANG)
    while not ended and time.monotonic() < until:
        time.sleep(_POLL_SECONDS)
        ended, status = os.waitpid(order.pid, os.WNOHANG)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(order.pid, signal.SIGKILL)
    if not ended:
        status = os.waitpid(order.pid, 0)[1]
    with contextlib.suppress(ChildProcessError):
        while True:  # its address is free once the last of its group is gone
            os.waitpid(-order.pid, 0)
    return os.waitstatus_to_exitcode(status)


def _forked(order: Order | ProgramOrder | ServerOrder) -> int:
    said = os.open(order.stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(said, stream)
    os.environ.clear()
    os.environ.update(order.environ)
    try:
        if isinstance(order, ServerOrder):
            _serve_openai(order)
        elif isinstance(order, ProgramOrder):
            _run_program(order)
        else:
            main(Path(order.given), Path(order.out))
    except SystemExit as end:
        return _exit_code(end)
    except BaseException:  # noqa: BLE001 - the test says what it was
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _run_program(order: ProgramOrder) -> None:
    os.dup2(os.open(order.stdout, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    sys.argv[1:] = order.options
    runpy.run_module(order.module, run_name="__main__", alter_sys=True)


def _exit_code(end: SystemExit) -> int:
    """As Python's own: a text is printed, and means 1."""
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


def _serve_openai(order: ServerOrder) -> None:
    """What `python -m vllm.entrypoints.openai.api_server` does, in a session of its own."""
    from vllm.entrypoints.launchers.api_server import entry

    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.path[1:1] = [folder for folder in order.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.argv = ["vllm", *order.options]
    _fork_workers()
    entry.main()


def _fork_workers() -> None:
    """Lets this server fork its engine and its worker, as vLLM does where it is not told otherwise.

    On a CPU it starts them anew, for the sake of threads that each is to bind to cores of its own: here is one thread.
    """
    from vllm.platforms.cpu import CpuPlatform

    configure = CpuPlatform.check_and_update_config

    def check_and_update_config(_: type, config: Any) -> None:  # Any: vLLM's
        configure(config)
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"

    CpuPlatform.check_and_update_config = classmethod(check_and_update_config)


if __name__ == "__main__":
    serve()
    os._exit(0)  # what is imported takes its time to take leave, and prints about it

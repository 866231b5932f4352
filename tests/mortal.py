"""Moments in, collectors that the kernel kills at that very moment out: real processes, each ended by SIGKILL.

A program too: collectors are forked off it once it has imported what they need, so that one starts in a moment. Its
orders are lines of JSON; it answers each with a number, of a start the process and of a wait the exit code.
"""

import contextlib
import functools
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Moment:
    """Before, halfway through or after the n-th call of a function, named as module:Class.function.

    Halfway through is for a function whose last argument is bytes: three fifths of them get there. Half of a group of
    two records or of four would be whole ones, and nothing torn.
    """

    when: str
    function: str
    call: int = 1


class Mortals:
    """The process that collectors are forked off; on leaving it is ended, and those that still run with it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            # Without -P its folder would come first, and there is a requests.py in it.
            [sys.executable, "-P", __file__],
            env={"OPENBLAS_NUM_THREADS": "1"} | os.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)

    def start(self, options: Sequence[str | Path], log: Path, moment: Moment | None = None) -> int:
        """The process of a collector with these options, which may not listen yet."""
        death = None if moment is None else asdict(moment)
        return self._ask({"options": list(map(str, options)), "log": str(log), "moment": death})

    def wait(self, pid: int, within_seconds: float) -> int:
        """The exit code of one, negative where a signal ended it. Kills it, and fails, if it lives on."""
        pidfd = os.pidfd_open(pid)
        try:
            late = not select.select([pidfd], [], [], within_seconds)[0]
            if late:
                os.kill(pid, signal.SIGKILL)
        finally:
            os.close(pidfd)
        code = self._ask({"wait": pid})
        assert not late, f"the collector still lives after {within_seconds} s: its moment never came"
        return code

    # Any: JSON.
    def _ask(self, order: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        return int(self._process.stdout.readline())


def _serve() -> None:
    for module in ("introspan_collector.pipeline", "introspan_collector.cli.collector"):
        importlib.import_module(module)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    running: set[int] = set()
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            pid = order["wait"]
            running.discard(pid)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=answers)
            continue
        pid = os.fork()
        if pid == 0:
            answers.close()
            os._exit(_collect(order))
        running.add(pid)
        print(pid, file=answers)
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


# Any: JSON.
def _collect(order: dict[str, Any]) -> int:
    said = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(said, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["introspan", "collector", *order["options"]]
    if order["moment"] is not None:
        _arrange(Moment(**order["moment"]))
    from introspan_collector.cli import main

    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:  # noqa: BLE001 - the log says what it was
        traceback.print_exc()
        return 1
    return 0


def _arrange(moment: Moment) -> None:
    """Puts the end of this process around a function."""
    module, _, path = moment.function.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    setattr(owner, name, _fatal(getattr(owner, name), moment))


# Any: the arguments and the result of whatever function it is.
def _fatal(original: Callable[..., Any], moment: Moment) -> Callable[..., Any]:
    calls = 0

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls < moment.call:
            return original(*args, **kwargs)
        if moment.when == "halfway":
            *others, data = args
            original(*others, data[: len(data) * 3 // 5], **kwargs)
        elif moment.when == "after":
            original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")

    return call


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        _serve()

"""`python -m demo.run` as make demo runs it: of a healthy system it says nothing, and it ends all that it started."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from demo.processes import loopback_port
from demo.run import COLLECTOR_PATIENCE_SECONDS
from demo.server import PATIENCE_SECONDS
from tests.patience import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("demo"),  # one at a time: each starts a server and prefers the same ports
    pytest.mark.usefixtures("model_directory"),
]

_ROOT = Path(__file__).parents[2]
# As in deployment.py: left to itself vLLM would bind to the core that other tests' servers bind to.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
_PREFERRED_PORTS = ("4317", "9464", "8000")
_PROGRAMS = 2
"""What a demonstration starts, each in a session of its own: a collector and a server."""
_START_SECONDS = 600.0
_RUN_SECONDS = 30.0
_INTERRUPTED_SECONDS = PATIENCE_SECONDS + COLLECTOR_PATIENCE_SECONDS + 10.0
"""Each of the two programs has its patience to end in; so much more for what the demonstration says itself."""


class Demonstration:
    """One that runs, or has run. sessions: its own, and those of everything below it, as far as looked."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._output = folder / "demo.log"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                (sys.executable, "-m", "demo.run", *options),
                cwd=_ROOT,
                env={**os.environ, **_ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.sessions = {self.process.pid}

    @property
    def text(self) -> str:
        return self._output.read_text(encoding="utf-8")

    @property
    def ports(self) -> tuple[int, ...]:
        """Those it took: others than it prefers where somebody has these."""
        moved = dict(re.findall(r"port (\d+) is taken, using (\d+)", self.text))
        return tuple(int(moved.get(port, port)) for port in _PREFERRED_PORTS)

    def running(self) -> set[int]:
        """Everything that runs in its sessions, whosever child it is by now."""
        found = _processes()
        below = {pid for pid, (_, session) in found.items() if session in self.sessions}
        self.sessions |= {session for parent, session in found.values() if parent in below}
        return {pid for pid, (_, session) in found.items() if session in self.sessions}

    def until(self, claim: Callable[[], object]) -> None:
        """Returns once the claim is true of a demonstration that goes on."""

        def holds() -> object:
            self.running()
            if self.process.poll() is not None:
                pytest.fail(f"it ended with {self.process.returncode}:\n{self.text}", pytrace=False)
            return claim()

        eventually(holds, _START_SECONDS, poll_seconds=0.2)

    def ends_within(self, seconds: float) -> int:
        """Its exit code."""

        def ended() -> bool:
            self.running()
            return self.process.poll() is not None

        eventually(ended, seconds, poll_seconds=0.2)
        return self.process.returncode


@contextmanager
def demonstration(folder: Path, *options: str) -> Iterator[Demonstration]:
    """A demonstration; whatever a broken one leaves is ended with the test."""
    found = Demonstration(folder, *options)
    try:
        yield found
    finally:
        print(found.text)
        for pid in found.running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        found.process.wait()


@pytest.fixture
def bystander() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server of somebody else, on the port that the demonstration would take if it were free."""
    port = loopback_port(8000)
    process = subprocess.Popen(
        (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    eventually(lambda: _answers(port))
    yield process, port
    process.kill()
    process.wait()


def test_healthy_demonstration_is_silent_says_when_the_first_signal_came_and_leaves_nothing_running(tmp_path):
    with demonstration(tmp_path, "--seconds", str(int(_RUN_SECONDS)), "--fault", "none") as running:
        running.until(lambda: "vllm is ready" in running.text)
        assert len(running.sessions) == 1 + _PROGRAMS
        assert running.ends_within(3 * _RUN_SECONDS + _INTERRUPTED_SECONDS) == 0
        assert running.running() == set()
        assert [loopback_port(port) for port in running.ports] == list(running.ports)
        said = running.text
    first = re.search(
        r"^first signal (\d+\.\d) s after the server was ready, (\d+) s after the start", said, re.MULTILINE
    )
    assert first is not None
    assert 0.0 < float(first.group(1)) < float(first.group(2))
    assert re.search(r"\] [1-9]\d* requests, [1-9]\d* tokens, [1-9]\d* segments, [1-9]\d* layers;", said)
    assert "\nalarms before anything was done to the system: none\n" in said
    assert "a request failed" not in said


@pytest.mark.parametrize("moment", ["starting", "serving"])
def test_ctrl_c_ends_what_the_demonstration_started_and_nothing_else(tmp_path, bystander, moment):
    process, port = bystander
    with demonstration(tmp_path, "--fault", "none") as running:
        if moment == "starting":
            running.until(lambda: len(running.sessions) == 1 + _PROGRAMS)
            time.sleep(5.0)  # vLLM is importing, for longer than that
            assert "vllm is ready" not in running.text
        else:
            running.until(lambda: re.search(r"\] [1-9]\d* requests", running.text))
        # What a terminal does; programs in sessions of their own do not hear of it.
        os.killpg(running.process.pid, signal.SIGINT)
        interrupted = time.monotonic()
        assert running.ends_within(_INTERRUPTED_SECONDS) == 0
        print(f"interrupted while {moment}: ended {time.monotonic() - interrupted:.1f} s later")
        assert running.running() == set()
        assert [loopback_port(taken) for taken in running.ports] == list(running.ports)
        assert "ended early; nothing that the demonstration started is left running" in running.text
        assert "port 8000 is taken" in running.text
    assert process.poll() is None
    assert _answers(port)


def _processes() -> dict[int, tuple[int, int]]:
    """Parent and session of everything that runs, by pid; a zombie has ended."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, parent, _, session = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:4]
            if state != "Z":
                found[int(entry.name)] = int(parent), int(session)
    return found


def _answers(port: int) -> bool:
    return httpx.get(f"http://127.0.0.1:{port}/", timeout=5.0).is_success

"""What every test may ask for: free ports, the real model, the programs of other projects."""

import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo.model import cache_folder, prepare

# As the command line has it: NumPy, which reads it when it is imported, computes with small matrices here, for which
# threads of BLAS wait for each other and for the tests of another process.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# What a shell starts in the background ignores Ctrl-C, and so would every program that a test starts and sends it to.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _program(name: str, remedy: str) -> Path:
    beside = Path(sys.executable).with_name(name)
    found = beside if beside.exists() else shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is not installed: {remedy}", pytrace=False)
    return Path(found)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A loopback port that nobody listens on, another one at each call."""
    return _free_port


@pytest.fixture(scope="session")
def model_directory() -> Path:
    """SmolLM2-135M-Instruct in float32, as vLLM and transformers load it; made once a machine."""
    return prepare(cache_folder(), lambda line: sys.stderr.write(f"{line}\n"))


@pytest.fixture(scope="session")
def prometheus_program() -> Path:
    return _program("prometheus", "run make test as root, or apt-get install prometheus")


@pytest.fixture(scope="session")
def promtool_program() -> Path:
    return _program("promtool", "run make test as root, or apt-get install prometheus")


@pytest.fixture(scope="session")
def alertmanager_program() -> Path:
    return _program(
        "prometheus-alertmanager", "run make test as root, or apt-get install prometheus-alertmanager"
    )


@pytest.fixture(scope="session")
def amtool_program() -> Path:
    return _program("amtool", "run make test as root, or apt-get install prometheus-alertmanager")


@pytest.fixture(scope="module", autouse=True)
def _one_thread_for_tensors(request: pytest.FixtureRequest) -> Iterator[None]:
    """Unit and property tests compute with tensors so small that a second thread only waits.

    And so it does where there are as many processes of tests as cores.
    """
    torch = sys.modules.get("torch")
    are_small = bool({"unit", "property"} & set(request.path.parts))
    if torch is None or not (are_small or "PYTEST_XDIST_WORKER" in os.environ):
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

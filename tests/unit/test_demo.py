"""What the demonstration promises: it ends what it started and nothing else, and it shows what was measured."""

import asyncio
import io
import os
import signal
import socket
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from demo.collected import EMPTY, read
from demo.picture import save
from demo.processes import loopback_port, start
from demo.show import Plan, Show
from demo.traffic import Tally, chats
from demo.view import COLUMNS, Run, plain_line, screen

_PARENT_OF_TWO = """
import subprocess, sys, time
children = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) for _ in range(2)]
print(*(child.pid for child in children), flush=True)
time.sleep(60)
"""
_STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""


def _wait_for(path: Path) -> str:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if text := path.read_text():
            return text
        time.sleep(0.02)
    pytest.fail(f"nothing was written to {path}")


def _alive(pid: int) -> bool:
    try:
        # A zombie has ended; only its parent has not asked yet.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_leaving_ends_a_program_with_its_children_and_nothing_else(tmp_path):
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with start("parent", [sys.executable, "-c", _PARENT_OF_TWO], {}, tmp_path, 5.0) as program:
            children = [int(pid) for pid in _wait_for(program.log).split()]
            assert all(_alive(pid) for pid in children)
        assert not _alive(program.process.pid)
        assert not any(_alive(pid) for pid in children)
        assert _alive(bystander.pid)
    finally:
        bystander.kill()
        bystander.wait()


def test_program_that_ignores_sigterm_is_killed_after_the_patience_it_was_given(tmp_path):
    began = time.monotonic()
    with start("stubborn", [sys.executable, "-c", _STUBBORN], {}, tmp_path, 0.5) as program:
        _wait_for(program.log)
    assert program.process.returncode == -signal.SIGKILL
    assert time.monotonic() - began < 20


def test_program_is_ended_when_an_exception_passes(tmp_path):
    pids = []

    def interrupted():
        with start("parent", [sys.executable, "-c", _PARENT_OF_TWO], {}, tmp_path, 5.0) as program:
            pids.extend([program.process.pid, *map(int, _wait_for(program.log).split())])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(pids) == 3
    assert not any(_alive(pid) for pid in pids)


def test_program_is_in_a_process_group_of_its_own(tmp_path):
    with start("parent", [sys.executable, "-c", _PARENT_OF_TWO], {}, tmp_path, 5.0) as program:
        assert os.getpgid(program.process.pid) == program.process.pid != os.getpgid(0)


def test_taken_port_is_replaced_by_a_free_one(free_port):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert loopback_port(port) != port
    preferred = free_port()
    assert loopback_port(preferred) == preferred


def test_same_seed_gives_the_same_requests_and_every_request_its_own_trace():
    first, again = (list(islice(chats("m", 7), 50)) for _ in range(2))
    assert first == again
    assert len({chat.headers["traceparent"] for chat in first}) == 50
    assert len({chat.headers["Authorization"] for chat in first}) > 1
    assert {chat.body["stream"] for chat in first} == {True, False}


_LATEST = {
    "window_seconds": 60.0,
    "series": [
        {"signal": "residual.log_rms", "layer": 0, "mean": -1.25},
        {"signal": "residual.log_rms", "layer": 29, "mean": 3.5},
        {"signal": "attention.entropy", "layer": 29, "mean": 2.125},
        {"signal": "output.entropy", "layer": None, "mean": 0.875},
    ],
}
_STATUS = {
    "replicas": [
        {
            "segments": {"prompt": 3, "decoded": 4},
            "measured_steps": 10,
            "measured_rows": 30,
            "capture_seconds": 0.005,
            "drops": {"queue_full": 2},
            "disabled": [{"signal": "attention", "reason": "self_check_failed", "detail": "layer 3 differs"}],
        }
    ]
}
_RUN = Run(
    "a-model", 12.0, 60.0, Tally(sent=9, answered=7, failed=1, output_tokens=480), {"metrics": "there"}
)


def _text(snapshot, width=COLUMNS) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(screen(_RUN, snapshot, width))
    return console.export_text()


def test_screen_shows_every_mean_drop_and_disabled_signal():
    text = _text(read(_LATEST, _STATUS))
    for shown in (
        "-1.25",
        "3.50",
        "2.12",
        "0.875",
        "queue_full 2",
        "self_check_failed",
        "0.50 ms",
        "1 in flight",
    ):
        assert shown in text, shown


def test_summary_says_how_long_the_first_signal_took_since_the_start_and_since_the_server_was_ready():
    seconds = iter((130.0, 131.5))
    console = Console(width=200, record=True, file=io.StringIO())
    show = Show(
        Plan("m", 1.0, None, 0), console, (), "", "", started_seconds=100.0, clock=lambda: next(seconds)
    )
    show._began = show.clock()

    def api(request):
        return httpx.Response(200, json=_LATEST if request.url.path == "/api/v1/latest" else _STATUS)

    async def look():
        async with httpx.AsyncClient(base_url="http://c", transport=httpx.MockTransport(api)) as client:
            await show._look(client)

    asyncio.run(look())
    show.clock = lambda: 140.0
    show._summarise()
    text = console.export_text()
    assert "first signal 1.5 s after the server was ready, 32 s after the start of the demonstration" in text


def test_screen_before_the_first_signal_says_that_there_is_nothing():
    assert "segments accepted: none" in _text(EMPTY)


@pytest.mark.parametrize("width", [80, COLUMNS])
def test_no_value_is_cut_in_a_terminal_of_80_columns_or_in_the_picture(width):
    text = _text(read(_LATEST, _STATUS), width)
    assert max(map(len, text.splitlines())) <= width
    assert "-1.25" in text
    assert "…" not in text


def test_plain_line_is_one_line_with_the_same_numbers():
    line = plain_line(_RUN, read(_LATEST, _STATUS))
    assert "\n" not in line
    assert "7 segments" in line
    assert "output.entropy=0.875" in line


def test_picture_loads_nothing_from_the_network(tmp_path):
    save(screen(_RUN, read(_LATEST, _STATUS), COLUMNS), tmp_path / "picture.svg")
    svg = (tmp_path / "picture.svg").read_text()
    assert "3.50" in svg
    assert "url(http" not in svg.replace('"', "")
    assert svg.count("://") == 1, "only the name of the SVG namespace looks like an address"

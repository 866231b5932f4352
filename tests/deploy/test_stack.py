"""`make stack` without make: three programs that know one another, and that end with it."""

import os
import re
import signal
import subprocess
import sys

import httpx
import pytest

from demo.processes import start
from tests.patience import eventually

_STOP_SECONDS = 30.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory, prometheus_program, alertmanager_program):
    assert prometheus_program
    assert alertmanager_program
    folder = tmp_path_factory.mktemp("stack")
    command = (sys.executable, "-m", "deploy.stack.run", "--data", folder / "data")
    with start("stack", command, {}, folder, _STOP_SECONDS) as started:
        eventually(lambda: "Ctrl-C" in started.log.read_text() or started.ended())
        yield started


def addresses(stack):
    said = stack.log.read_text()
    return dict(
        re.findall(r"^(collector|prometheus|alertmanager) +(http://127\.0\.0\.1:\d+)", said, re.MULTILINE)
    )


def test_it_says_where_everything_is(stack):
    found = addresses(stack)
    assert set(found) == {"collector", "prometheus", "alertmanager"}, stack.log_tail(20)
    assert httpx.get(f"{found['collector']}/readyz").text == "ready\n"
    for address in re.findall(r": (http://\S+)$", stack.log.read_text(), re.MULTILINE):
        assert httpx.get(address).is_success, address
    assert re.search(r"INTROSPAN_ENDPOINT=127\.0\.0\.1:\d+", stack.log_tail(5))


def test_prometheus_has_the_delivered_rules_and_knows_the_other_two(stack):
    found = addresses(stack)

    def asked(path):
        return httpx.get(f"{found['prometheus']}/api/v1/{path}").json()["data"]

    groups = {group["name"] for group in asked("rules")["groups"]}
    assert groups == {"introspan-model", "introspan-reference", "introspan-capture", "introspan-collector"}
    # Files of targets are read some seconds after the start.
    (target,) = eventually(lambda: asked("targets")["activeTargets"])
    assert target["scrapeUrl"] == f"{found['collector']}/metrics"
    (peer,) = eventually(lambda: asked("alertmanagers")["activeAlertmanagers"])
    assert peer["url"] == f"{found['alertmanager']}/api/v2/alerts"


def test_it_ends_what_it_started_and_nothing_else(stack):
    children = subprocess.run(
        ["ps", "--no-headers", "-o", "pid", "--ppid", str(stack.process.pid)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert len(children) == 3
    stack.process.send_signal(signal.SIGINT)
    assert stack.process.wait(timeout=_STOP_SECONDS) == 0
    assert "nothing that was started is left running" in stack.log_tail(2)
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(int(child), 0)
    assert {path.name for path in (stack.log.parent / "data").iterdir()} == {
        "alertmanager", "collector", "prometheus"
    }  # fmt: skip

"""The course of an alarm in a real collector: seen in API, terminal and /metrics, looked after, accepted, over."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import typer
from typer.testing import CliRunner

from bench.producer import Producer
from introspan_collector.cli import alarms, reference
from introspan_collector.detect.reference.file import import_file
from tests.batches import ORIGIN, Traffic
from tests.collector import Collector
from tests.patience import eventually

INTROSPAN = Path(sys.executable).with_name("introspan")
APP = typer.Typer()
for commands in (alarms, reference):
    commands.register(APP)
CONFIG = """
http_token_file = "{token}"
[checkpoint]
interval_seconds = 0.5
[detect]
tick_seconds = 0.5
provisional_clusters = 60
frozen_clusters = 100000
quiet_seconds = 3600.0
checkpoint_seconds = 3600.0
"""


class Service:
    """A collector, the traffic that it is told of, and somebody at a terminal."""

    def __init__(self, folder, free_port):
        self.token = folder / "token"
        self.token.write_text("secret\n")
        self.collector = Collector(folder, free_port, CONFIG.format(token=self.token))
        self.traffic = Traffic()

    def send(self, requests=20, **fault):
        batch = self.traffic.batch(requests, time.time(), **fault)
        self.producer.send(*batch.tables, status=batch.status)
        time.sleep(0.1)
        return True

    def __enter__(self):
        self.collector.start()
        self.producer = Producer(self.collector.grpc, ORIGIN)
        return self

    def __exit__(self, *_):
        self.producer.__exit__(None, None, None)
        self.collector.stop()

    def get(self, path, **parameters):
        return self.collector.get(f"/api/v1/{path}", **parameters).json()

    def run(self, *command, code=0, token=True):
        """What a command prints, on standard output or, where it fails, on standard error."""
        where = ["--url", f"http://{self.collector.http}"]
        allowed = ["--token-file", str(self.token)] if token else []
        done = CliRunner().invoke(APP, [*command, *where, *allowed])
        assert done.exit_code == code, done.output
        return done.stderr if code else done.stdout

    def json(self, *command):
        return json.loads(self.run(*command, "--format", "json"))

    @property
    def reference(self):
        found = self.get("references")["references"]
        return found[0] if found else None


@pytest.fixture(scope="module")
def service(tmp_path_factory, free_port):
    """Its reference is provisional."""
    with Service(tmp_path_factory.mktemp("collector"), free_port) as found:
        eventually(lambda: found.send() and found.reference and found.reference["state"] == "provisional")
        yield found


def test_a_fault_is_seen_looked_after_and_over_once_a_reference_is_promoted(service, tmp_path):
    assert service.collector.metric("introspan_reference_state", model="m", state="provisional") == 1
    assert service.collector.metric("introspan_reference_clusters") >= 60
    assert service.collector.metric("introspan_alarm_active") == 0
    assert "provisional" in service.run("reference", "list")
    assert "No alarms." in service.run("alarms", "list")

    def pages():
        service.send(temperature=2.0)
        return [one for one in service.get("alarms")["alarms"] if one["severity"] == "critical"]

    (alarm,) = eventually(pages)
    assert alarm["triage"]["verdict"] == "sampler"
    assert service.json("alarms", "show", alarm["id"])["id"] == alarm["id"]
    assert "IntrospanSamplerDeviates" in service.run("alarms", "list", "--state", "open")
    assert alarm["guarantee"][:30] in service.run("alarms", "show", alarm["id"])
    assert service.collector.metric("introspan_alarm_active", model="m", severity="critical") == 1
    assert service.collector.metric("introspan_incidents_total", alertname="IntrospanSamplerDeviates") == 1

    service.run("alarms", "ack", alarm["id"], "--by", "ann", "--comment", "temperature")
    acknowledged = service.get(f"alarms/{alarm['id']}")
    assert (acknowledged["state"], acknowledged["acknowledgement"]["by"]) == ("acknowledged", "ann")

    # Evidence of the fault that is still on its way would raise the next alarm after this one is over.
    for _ in range(10):
        service.send()
    service.collector.wait_processed()
    before = tmp_path / "before.zip"
    service.run("reference", "export", "--model", "m", "--output", str(before))
    promoted = service.run("reference", "promote", "--model", "m")
    assert service.reference["reference"]["content_sha256"] in promoted
    ended = service.get(f"alarms/{alarm['id']}")
    assert ended["state"] == "resolved"
    assert service.reference["reference"]["content_sha256"] in ended["resolution"]
    assert service.collector.metric("introspan_alarm_active") == 0
    assert service.collector.metric("introspan_reference_state", state="frozen") == 1

    assert "frozen" in service.run("reference", "show", "--model", "m")
    service.run("reference", "import", str(before))
    assert service.reference["state"] == "provisional"
    assert service.run("reference", "diff", str(before)).startswith("0 of ")


def test_the_metrics_of_detection_are_clean(service, promtool_program):
    text = service.collector.get("/metrics").content
    done = subprocess.run(
        [promtool_program, "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_what_was_collected_becomes_a_file_and_changes_nothing(service, tmp_path):
    service.send()
    eventually(lambda: service.send() and service.reference["building"])
    before = service.reference["reference"]
    service.run("reference", "build", "--model", "m", "--output", str(tmp_path / "draft.zip"))
    assert import_file(tmp_path / "draft.zip").identity.model == "m"
    assert service.reference["reference"] == before


def test_deploys_are_announced_and_withdrawn_at_the_terminal(service):
    service.run("alarms", "announce", "--reason", "new weights", "--for", "10m", "--in", "5m", "--model", "m")
    (window,) = service.json("alarms", "windows")["windows"]
    assert window["end"] - window["start"] == pytest.approx(600, abs=1)
    assert window["start"] == pytest.approx(time.time() + 300, abs=60)
    assert "new weights" in service.run("alarms", "windows")
    service.run("alarms", "withdraw", window["id"])
    assert "No deploys" in service.run("alarms", "windows")


def test_commands_say_what_they_lack_and_end_with_1_refused_or_2_called_wrongly(service, tmp_path):
    said = service.run("alarms", "announce", "--reason", "r", "--for", "1m", code=1, token=False)
    assert "authorization" in said
    assert "http_token_file" in said
    assert "id = 'none'" in service.run("alarms", "show", "none", code=1)
    assert "state = 'loud'" in service.run("alarms", "list", "--state", "loud", code=1)
    assert "not a duration" in service.run("alarms", "announce", "--reason", "r", "--for", "soon", code=2)
    assert "cannot be read" in service.run(
        "alarms", "list", "--token-file", str(tmp_path), code=2, token=False
    )
    assert "model = 'n'" in service.run("reference", "export", "--model", "n", "--output", "x", code=1)
    elsewhere = [INTROSPAN, "alarms", "list", "--url", "http://127.0.0.1:9"]
    done = subprocess.run(elsewhere, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "--url http://127.0.0.1:9 does not answer" in done.stderr


def test_a_decision_outlasts_a_kill(service):
    service.run("alarms", "announce", "--reason", "survives", "--for", "10m")
    saved = service.collector.data / "cursors" / "detect"
    eventually(lambda: saved.exists() and b"survives" in saved.read_bytes())
    service.collector.signal(signal.SIGKILL)
    service.collector.stop()
    service.collector.start()
    assert [one["reason"] for one in service.get("maintenance")["windows"]] == ["survives"]


def test_a_browser_without_the_token_changes_nothing(service):
    url = f"http://{service.collector.http}/api/v1/references/promote"
    assert httpx.post(url, json={"model": "m"}).status_code == 401

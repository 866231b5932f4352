"""Every command in quickstart and operations is one that there is; what can run here does what is said of it."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
import yaml

from introspan.config import KEYS, Settings, SettingsError, load
from introspan_collector.config import ENVIRONMENT_PREFIX, load_settings
from introspan_wire.v1 import observation_pb2 as pb
from introspan_wire.v1 import observation_service_pb2 as service_pb
from introspan_wire.v1 import observation_service_pb2_grpc as service_grpc
from tests.collector import Collector
from tests.deploy.commands import blocks, commands, options, words
from tests.deploy.dockerfile import stages
from tests.deploy.rendered import CHART, ROOT, helm, rendered
from tests.patience import eventually

_QUICKSTART = ROOT / "docs" / "quickstart.md"
_PAGES = (_QUICKSTART, ROOT / "docs" / "operations.md")
_COMMANDS = [(page.stem, command) for page in _PAGES for command in commands(page)]
_INTROSPAN = Path(sys.executable).with_name("introspan")
_IMAGES = {
    "introspan-collector",
    "registry.example.com/vllm-introspan:v0.32.0",
    "registry.example.com/introspan-sdk:0.1.0",
}


@cache
def help_of(*command):
    environment = {**os.environ, "COLUMNS": "300", "TERM": "dumb", "NO_COLOR": "1"}
    done = subprocess.run(
        [_INTROSPAN, *command, "--help"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def introspan(arguments):
    given = options(arguments)
    command = [word for word in given.pop("") if word.islower() and "." not in word]
    text = help_of(*command)
    assert f"introspan {' '.join(command)}" in text
    for option in given:
        assert re.search(rf"{option}\b", text), f"introspan {' '.join(command)} has no {option}"


def pip(arguments):
    assert arguments[0] == "install"
    extra = re.fullmatch(r"\.(?:\[(\w+)\])?", arguments[1])
    assert extra, arguments
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extra[1] is None or extra[1] in project["optional-dependencies"]


def python(arguments):
    given = options(arguments)
    for module in given.get("-m", [])[:1]:
        assert importlib.util.find_spec(module)
    assert given.keys() & {"-m", "-c"}


def export(arguments):
    (assignment,) = arguments
    name = assignment.partition("=")[0]
    assert name in {key.name for key in KEYS} or name.startswith(ENVIRONMENT_PREFIX)


def curl(arguments):
    given = options(arguments)
    (address,) = given.pop("")
    if urlsplit(address).netloc == "127.0.0.1:8000":  # vLLM, which is asked as anybody asks it
        assert urlsplit(address).path == "/v1/completions"
        assert {"model", "prompt"} < json.loads(given["-d"][0]).keys()
        return
    assert urlsplit(address).netloc == "127.0.0.1:9464"
    assert not given


def docker(arguments):
    {"compose": compose, "build": build, "run": run}[arguments[0]](options(arguments[1:]))


def compose(given):
    assert (ROOT / given["-f"][0]).exists()
    assert given["-f"][1] == "up"
    assert given.keys() == {"", "-f", "--build", "--wait"}


def build(given):
    dockerfile = ROOT / given["-f"][0]
    for target in given.get("--target", []):
        assert target in stages(dockerfile)
    for argument in given.get("--build-arg", []):
        assert f"ARG {argument.partition('=')[0]}=" in dockerfile.read_text()
    tag, context = given["-t"]
    assert tag in _IMAGES
    assert context == "."


def run(given):
    stage = stages(ROOT / "deploy" / "Dockerfile")["collector"]
    assert [port.split(":")[2] for port in given["-p"]] == stage.last("EXPOSE").split()
    volume, image = given["-v"]
    assert volume.partition(":")[2] == stage.last("VOLUME")
    assert image in _IMAGES


def helm_(arguments):
    given = options(arguments)
    command, release, chart = given[""]
    assert command in {"install", "upgrade"}
    assert (ROOT / chart).resolve() == CHART
    settings = [word for value in given.get("--set", ()) for word in ("--set", value)]
    done = helm("template", release, CHART, "--namespace", *given["--namespace"], *settings)
    assert done.returncode == 0, done.stderr
    text = helm(command, "--help").stdout
    assert all(option in text for option in given if option)


def kubectl(arguments):
    given = options(arguments)
    *command, name = given["--namespace"][1:]
    assert command == ["create", "secret", "generic"]
    secret = chart_values()["secrets"]["canaryKey"]
    assert secret == {"name": name, "key": given["--from-file"][0]}


def chart_values():
    (text,) = (block.text for block in blocks(_QUICKSTART) if block.text.startswith("# values.yaml"))
    return yaml.safe_load(text)


_PROGRAMS = {
    "introspan": introspan,
    "pip": pip,
    "python": python,
    "export": export,
    "curl": curl,
    "docker": docker,
    "helm": helm_,
    "kubectl": kubectl,
}


@pytest.mark.parametrize("command", [command for _, command in _COMMANDS])
def test_every_command_has_the_options_files_and_names_that_it_uses(command):
    program, *arguments = words(command.partition(" > ")[0])
    _PROGRAMS[program](arguments)


def test_a_command_that_there_is_not_would_be_noticed():
    for wrong in ("introspan colector", "introspan collector --dir a"):
        with pytest.raises(AssertionError):
            introspan(words(wrong)[1:])
    with pytest.raises(AssertionError):
        export(["INTROSPAN_ENDPOINTS=a"])


def test_the_page_shows_what_it_promises():
    assert {page for page, _ in _COMMANDS} == {"quickstart", "operations"}
    assert len(_COMMANDS) > 20


def test_the_configuration_in_the_quickstart_is_one_that_the_collector_takes(tmp_path):
    (text,) = (block.text for block in blocks(_QUICKSTART) if block.language == "toml")
    file = tmp_path / "collector.toml"
    file.write_text(text)
    settings = load_settings(file, {})
    assert settings.canary.endpoints
    assert settings.notify.alertmanagers


def test_the_configuration_of_prometheus_is_one_that_it_takes_with_the_rules(promtool_program, tmp_path):
    (text,) = (block.text for block in blocks(_QUICKSTART) if block.text.startswith("rule_files"))
    file = tmp_path / "prometheus.yml"
    file.write_text(text.replace("deploy/", f"{ROOT}/deploy/"))
    done = subprocess.run(
        [promtool_program, "check", "config", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list(ROOT.glob("deploy/grafana/provisioning/dashboards/json/*.json"))


def test_the_values_in_the_quickstart_are_ones_that_the_chart_takes(tmp_path):
    release = rendered(chart_values())
    file = tmp_path / "collector.toml"
    file.write_text(release.one("ConfigMap")["data"]["collector.toml"])
    settings = load_settings(file, {})
    assert settings.canary.endpoints == ("http://vllm.default:8000",)
    assert settings.canary.key_file
    assert settings.notify.alertmanagers


@pytest.mark.parametrize(
    "path", sorted((ROOT / "deploy" / "examples").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_change_to_a_deployment_is_two_lines(path):
    marked = re.findall(r"^.*#\s*\d: .*$", path.read_text(), re.MULTILINE)
    assert len(marked) == 2
    assert "vllm-introspan" in marked[0]
    assert "INTROSPAN_ENDPOINT" in marked[1]
    lines = [line.partition("  #")[0].strip() for line in marked]
    shown = "".join(block.text for block in blocks(_QUICKSTART) if block.language == "diff")
    assert lines[1].removeprefix("- ") in shown
    assert yaml.safe_load(path.read_text())


def test_the_changes_that_are_shown_lead_to_the_service_of_the_chart():
    text = _QUICKSTART.read_text()
    service = rendered().one("StatefulSet")["metadata"]["name"]
    addresses = re.findall(r'INTROSPAN_ENDPOINT, value: "([^"]+)"', text)
    assert set(addresses) == {f"{service}.introspan:4317"}


def test_what_the_log_is_said_to_say_is_what_it_says():
    text = _QUICKSTART.read_text()
    assert Settings().off_because.startswith("capture is off: set INTROSPAN_ENDPOINT")
    assert "`capture is off: set INTROSPAN_ENDPOINT…`" in text
    with pytest.raises(SettingsError, match="is not a setting"):
        load({"INTROSPAN_ENDPOINTS": "a"})
    health = (ROOT / "sdk" / "introspan" / "capture" / "health.py").read_text()
    assert "is not captured (%s)" in health
    assert "`… is not captured (unsupported_engine)`" in text


class Newcomer:
    """Does what the quickstart says, with other ports and paths than a machine may have in use."""

    def __init__(self, folder, collector):
        self.folder, self.collector = folder, collector

    def run(self, command):
        """A command as it is written, but for the address."""
        words_ = words(command)
        if words_[0] == "introspan":
            done = subprocess.run(
                [_INTROSPAN, *words_[1:], "--url", f"http://{self.collector.http}"],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout
        address = words_[1].replace("127.0.0.1:9464", self.collector.http)
        return httpx.get(address).raise_for_status().text


def test_a_newcomer_sees_a_server_in_what_the_quickstart_says_to_look_at(tmp_path, free_port):
    shell = commands(_QUICKSTART)
    (make_key,) = (command for command in shell if "canary.key" in command and command.startswith("python"))
    program = f"{sys.executable} {make_key.removeprefix('python ')}"
    subprocess.run(["bash", "-euc", program], cwd=tmp_path, check=True)
    (text,) = (block.text for block in blocks(_QUICKSTART) if block.language == "toml")
    text = text.replace('"canary.key"', f'"{tmp_path / "canary.key"}"')
    text = re.sub(r"127\.0\.0\.1:\d+", lambda _: f"127.0.0.1:{free_port()}", text)
    with Collector(tmp_path, free_port, text) as collector:
        newcomer = Newcomer(tmp_path, collector)
        with grpc.insecure_channel(collector.grpc) as channel:
            resource = pb.Resource(model_name="my-model", replica="my-host", service_name="vllm")
            request = service_pb.ExportObservationsRequest(
                resource=resource, producer_id=bytes(16), sequence=1
            )
            service_grpc.ObservationServiceStub(channel).ExportObservations(request, timeout=10)
        looks = [command for command in shell if command.startswith("curl") and ":9464" in command]
        assert len(looks) == 3
        for command in looks:
            eventually(lambda command=command: "my-model" in newcomer.run(command), 30)
        assert "No alarms" in newcomer.run("introspan alarms list")
        assert "References" in newcomer.run("introspan reference list") or "No model" in newcomer.run(
            "introspan reference list"
        )
        assert json.loads(newcomer.run(looks[0]))["models"]

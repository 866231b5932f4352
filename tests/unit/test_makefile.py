"""What make hands to uv: where packages come from, and which build of torch."""

import os
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_ASK = "include Makefile\nasked:\n\t@echo $(UV_TORCH_BACKEND) $${UV_TORCH_BACKEND-} $${UV_FIND_LINKS-}\n"


@pytest.fixture
def handed_on(tmp_path):
    """What uv would be told, on a machine that has these programs and these variables."""

    def ask(*programs, **environ):
        folder = tmp_path / "programs"
        folder.mkdir(exist_ok=True)
        for name in programs:
            (folder / name).write_text("#!/bin/sh\n")
            (folder / name).chmod(0o755)
        own = {
            name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "MAKE"))
        }
        done = subprocess.run(
            ["make", "-f", "-", "asked"],
            input=_ASK,
            cwd=_ROOT,
            env=own | {"PATH": f"{folder}:/usr/bin:/bin"} | environ,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    return ask


def test_torch_is_the_cpu_build_where_there_is_no_nvidia_gpu_and_the_usual_one_where_there_is(handed_on):
    assert handed_on() == ["cpu", "cpu"]
    assert handed_on("nvidia-smi") == []


def test_a_build_of_torch_that_was_chosen_stays(handed_on):
    assert handed_on(UV_TORCH_BACKEND="cu128") == ["cu128", "cu128"]
    assert handed_on("nvidia-smi", UV_TORCH_BACKEND="cpu") == ["cpu", "cpu"]


@pytest.mark.parametrize(
    "name", ["PIP_FIND_LINKS", "PIP_INDEX_URL", "UV_FIND_LINKS", "UV_DEFAULT_INDEX", "UV_INDEX"]
)
def test_whoever_says_where_packages_come_from_gets_torch_from_there(name, handed_on):
    assert "cpu" not in handed_on(**{name: "/some/wheels"})
    if "FIND_LINKS" in name:
        assert handed_on(**{name: "/some/wheels"}) == ["/some/wheels"]

"""How make installs: from where packages come, and which build of torch."""

import os
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_UV = """#!/bin/sh
echo "${UV_TORCH_BACKEND-usual} ${UV_FIND_LINKS-}" >> "$SAID"
[ "${UV_TORCH_BACKEND-usual}" != "$UNREACHABLE" ]
"""


@pytest.fixture
def install(tmp_path):
    """Exit code, and for each time that uv was called the build of torch and the folders of packages it was told.

    On a machine with these programs and variables, from which one build may be out of reach.
    """

    def run(*programs, unreachable="", **environ):
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        (folder / "venv").mkdir(parents=True)
        for name, text in {"uv": _UV, **dict.fromkeys(programs, "#!/bin/sh\n")}.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        named = ("PIP_", "UV_", "MAKE")
        own = {name: value for name, value in os.environ.items() if not name.startswith(named)}
        own |= {"PATH": f"{folder}:/usr/bin:/bin", "SAID": str(folder / "said"), "UNREACHABLE": unreachable}
        done = subprocess.run(
            ["make", f"VENV={folder}/venv", f"UV={folder}/uv", "install"],
            cwd=_ROOT,
            env=own | environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode == 0) == (folder / "venv/.installed").exists()
        return done.returncode, [line.split() for line in (folder / "said").read_text().splitlines()]

    return run


def test_torch_is_the_cpu_build_where_there_is_no_nvidia_gpu_and_the_usual_one_where_there_is(install):
    assert install() == (0, [["cpu"]])
    assert install("nvidia-smi") == (0, [["usual"]])


def test_where_the_cpu_build_cannot_be_had_the_usual_one_is_taken(install):
    assert install(unreachable="cpu") == (0, [["cpu"], ["usual"]])
    code, tried = install("nvidia-smi", unreachable="usual")
    assert (code != 0, tried) == (True, [["usual"]])


def test_a_build_of_torch_that_was_chosen_stays(install):
    assert install(UV_TORCH_BACKEND="cu128") == (0, [["cu128"]])
    assert install("nvidia-smi", UV_TORCH_BACKEND="cpu") == (0, [["cpu"]])
    code, tried = install(UV_TORCH_BACKEND="cpu", unreachable="cpu")
    assert (code != 0, tried) == (True, [["cpu"]])


@pytest.mark.parametrize(
    "name", ["PIP_FIND_LINKS", "PIP_INDEX_URL", "UV_FIND_LINKS", "UV_DEFAULT_INDEX", "UV_INDEX"]
)
def test_whoever_says_where_packages_come_from_gets_torch_from_there(name, install):
    code, ((torch, *folders),) = install(**{name: "/some/wheels"})
    assert (code, torch) == (0, "usual")
    assert folders == (["/some/wheels"] if "FIND_LINKS" in name else [])

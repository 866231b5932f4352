"""What Introspan requires in a server goes together with what vLLM requires, or it is said why not."""

import sys
import zipfile
from pathlib import Path

import pytest

from compat.conflicts import ConflictError, lacking, requirements, resolve, together
from compat.wheels import Release

_VLLM = Release("vllm", "9.0")


def publish(folder, name, version, *requires):
    """A wheel with nothing in it but what it requires."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        wheel.writestr(
            f"{info}/METADATA", "\n".join([*lines, *(f"Requires-Dist: {one}" for one in requires), ""])
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path):
    publish(tmp_path, "vllm", "9.0", "protobuf>=5,<8", "torch==2.0")
    publish(tmp_path, "torch", "2.0", "numpy<2")
    for version in ("3.20.3", "5.29.6", "7.36.2"):
        publish(tmp_path, "protobuf", version)
    publish(tmp_path, "numpy", "1.26.4")
    publish(tmp_path, "numpy", "2.4.0")
    publish(tmp_path, "grpcio", "1.80.0", "protobuf<7")
    return ("--offline", "--no-index", "--find-links", str(tmp_path))


def test_requirements_that_vllm_meets_already_add_and_change_nothing(index):
    found = together(_VLLM, ["protobuf>=5.29.6", "numpy>=1.26"], index=index)
    assert found.ours == {"protobuf>=5.29.6": "7.36.2", "numpy>=1.26": "1.26.4"}
    assert (found.added, found.changed, found.conflict) == ([], [], "")


def test_what_comes_with_ours_and_what_of_vllms_it_moves_is_said(index):
    found = together(_VLLM, ["grpcio>=1.71"], index=index)
    assert found.added == ["grpcio 1.80.0"]
    assert found.changed == ["protobuf 7.36.2 → 5.29.6"]


@pytest.mark.parametrize("ours", ["protobuf<4", "numpy>=2", "torch>2"])
def test_a_requirement_that_vllm_excludes_is_a_conflict_in_the_resolvers_words(index, ours):
    found = together(_VLLM, [ours], index=index)
    assert ours.rstrip("0123456789.<>=") in found.conflict
    assert "unsatisfiable" in found.conflict


def test_a_release_that_is_not_there_is_no_resolution(index):
    with pytest.raises(ConflictError, match="vllm"):
        resolve(["vllm==8.0"], index)


def test_the_environment_that_has_vllm_meets_what_we_require_as_it_is():
    python = Path(sys.executable)
    assert lacking(python, requirements()) is None
    assert "protobuf" in (lacking(python, [*requirements(), "protobuf<4"]) or "")

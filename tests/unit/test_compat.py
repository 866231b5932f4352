"""What Introspan relies on in vLLM is looked for in each release, and what is missing is said."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from compat.page import page, ranges, sentences
from compat.probe import ask, lacks
from compat.source import Source
from compat.surface import Surface, Use
from compat.surfaces import SURFACES
from compat.versions import RESOLVED, SUPPORTED
from compat.wheels import UV, Release
from introspan.capture.runner import v1_runner, v2_runner

_RELEASE = Release("engine", "1.0")
_FILES = {
    "engine/__init__.py": "from .worker import *\nGROUP = 'engine.plugins'\n",
    "engine/worker.py": """\
from engine.base import Base as Inherited
class Worker(Inherited["x"]):
    field: int
    limit: int = 3
    def __init__(self, device):
        self.device, self.model = device, None
    @property
    def rank(self): return 0
    def load(self, weights, *, strict=True, **more): ...
    async def generate(self, prompt, params): ...
""",
    "engine/base.py": """\
class Base:
    def __class_getitem__(cls, _): return cls
    def stop(self, reason): ...
""",
    "engine/broken.py": "import a_package_of_some_gpu\n",
}
_ALL_THERE = (
    Surface(Use.V1, "engine.worker"),
    Surface(Use.V1, "engine:Worker.load", leading=("weights",), named=("strict", "whatever")),
    Surface(Use.V1, "engine.worker:Worker.generate", leading=("prompt", "params")),
    Surface(Use.V1, "engine.worker:Worker.stop", leading=("reason",)),
    Surface(Use.V1, "engine.worker:Worker.device"),
    Surface(Use.V1, "engine.worker:Worker.model"),
    Surface(Use.V1, "engine.worker:Worker.field"),
    Surface(Use.V1, "engine.worker:Worker.limit"),
    Surface(Use.V1, "engine.worker:Worker.rank"),
    Surface(Use.ATTACH, "engine:GROUP", value="engine.plugins"),
)
_WRONG = {
    "a method that is missing": (
        Surface(Use.V1, "engine.worker:Worker.sample"),
        "engine.worker:Worker has no sample",
    ),
    "a class that is missing": (Surface(Use.V1, "engine.worker:Runner.load"), "engine.worker has no Runner"),
    "a module that is missing": (
        Surface(Use.V1, "engine.gpu.worker:Worker"),
        "engine.gpu.worker is not there",
    ),
    "a parameter that was renamed": (
        Surface(Use.V1, "engine.worker:Worker.generate", leading=("prompt", "sampling_params")),
        "engine.worker:Worker.generate takes (prompt, params, …), not (prompt, sampling_params, …)",
    ),
    "a parameter by name that is missing": (
        Surface(Use.V1, "engine.worker:Worker.generate", named=("priority",)),
        "engine.worker:Worker.generate has no parameter priority",
    ),
    "a method that is none": (
        Surface(Use.V1, "engine.worker:Worker.rank", leading=("x",)),
        "engine.worker:Worker.rank is no function",
    ),
    "a constant that has changed": (
        Surface(Use.V1, "engine:GROUP", value="engine.general_plugins"),
        "engine:GROUP is 'engine.plugins', not 'engine.general_plugins'",
    ),
}
_ELSEWHERE = Surface(Use.V1, "engine.gpu.worker:Worker.load", elsewhere=("engine.worker:Worker.load",))
_NOWHERE = Surface(Use.V1, "engine.gpu.worker:Worker", elsewhere=("engine.worker:Runner",))
_ONLY_READ = "a method that is missing"
"""An import cannot tell it from an attribute that objects have."""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    for name, text in _FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def python(package, tmp_path_factory):
    """The Python of an environment that has the package and nothing of ours."""
    place = tmp_path_factory.mktemp("environment") / "env"
    subprocess.run([UV, "venv", "--quiet", "--offline", "--python", sys.executable, place], check=True)
    (site,) = place.glob("lib/python3*/site-packages")
    (site / "package.pth").write_text(f"{package}\n")
    return place / "bin" / "python"


def test_nothing_is_missed_that_is_there_as_read(package):
    assert lacks(Source(package), _ALL_THERE) == {}


def test_nothing_is_missed_that_is_there_as_imported(python):
    look = ask(python, _RELEASE, "2.0", _ALL_THERE)
    assert look.problems == {}
    assert (look.imported, look.not_imported) == (2, {})


@pytest.mark.parametrize("kind", _WRONG)
def test_reading_notices(package, kind):
    surface, sentence = _WRONG[kind]
    assert lacks(Source(package), [surface]) == {Use.V1.value: [sentence]}


@pytest.mark.parametrize("kind", [kind for kind in _WRONG if kind != _ONLY_READ])
def test_importing_notices(python, kind):
    surface, sentence = _WRONG[kind]
    assert ask(python, _RELEASE, "2.0", [surface]).problems == {Use.V1.value: [sentence]}


def test_what_another_release_has_elsewhere_is_not_missed(package, python):
    assert lacks(Source(package), [_ELSEWHERE]) == ask(python, _RELEASE, "2.0", [_ELSEWHERE]).problems == {}


def test_what_is_in_none_of_its_places_is_missed_once_with_all_of_them(package, python):
    said = {Use.V1.value: ["engine.gpu.worker is not there; engine.worker has no Runner"]}
    assert lacks(Source(package), [_NOWHERE]) == ask(python, _RELEASE, "2.0", [_NOWHERE]).problems == said


def test_a_module_that_cannot_be_imported_here_is_named_with_the_reason_and_lacks_nothing(python):
    look = ask(python, _RELEASE, "2.0", [Surface(Use.V1, "engine.broken:Worker"), *_ALL_THERE])
    assert look.not_imported == {
        "engine.broken": "ModuleNotFoundError: No module named 'a_package_of_some_gpu'"
    }
    assert (look.problems, look.imported) == ({}, 2)


def test_every_name_of_vllm_that_the_sdk_imports_is_looked_for():
    listed = {f"{name.partition(':')[0]}:{name.partition(':')[2].partition('.')[0]}" for name in _names()}
    root = Path(v1_runner.__file__).parent.parent
    imported = {
        f"{node.module}:{one.name}"
        for file in root.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm"
        for one in node.names
    }
    assert imported
    assert imported <= listed


def _names():
    return [name for surface in SURFACES for name in surface.names]


@pytest.mark.parametrize(
    ("adapter", "module"), [(v1_runner, "gpu_model_runner"), (v2_runner, "gpu.model_runner")]
)
def test_every_method_of_a_runner_that_is_wrapped_is_looked_for(adapter, module):
    wrapped = {f"vllm.v1.worker.{module}:GPUModelRunner.{name}" for name in adapter.METHODS}
    assert wrapped <= set(_names())


def test_nothing_of_the_installed_vllm_is_missing():
    found = [Path(entry) for entry in sys.path if (Path(entry) / "vllm" / "__init__.py").exists()]
    assert lacks(Source(found[0]), SURFACES) == {}


def test_releases_in_a_row_are_a_range():
    assert ranges(SUPPORTED) == f"{SUPPORTED[0]}–{SUPPORTED[-1]}"
    assert ranges(["0.25.1", "0.20.0", "0.20.1"]) == "0.20.0–0.20.1, 0.25.1"


def test_the_page_says_what_is_missing_where_and_of_what_nobody_looked():
    look = {"distribution": "vllm", "torch": "2.11.0", "caches": {}, "requires": []}
    lacking = look | {"problems": {"V1 runner": ["engine:Runner has no sample"]}}
    text = page({"releases": {"0.20.0": {"read": lacking, "not_imported": "no such wheel"}}})
    assert "| 0.20.0 | 2.11.0 | `vllm` | no: no such wheel | ✓ | ✓ | 1 |" in text
    assert "| V1 runner | `engine:Runner has no sample` | 0.20.0 |" in text
    assert text.count("not yet") == 2 * (len(SUPPORTED) - 1)


def test_what_is_missing_as_read_and_as_imported_is_said_once():
    look = {"problems": {"callers": ["engine is not there"]}}
    assert sentences({"read": look, "imported": look})["callers"] == ["engine is not there"]


def test_the_stored_results_are_of_supported_releases_and_the_page_is_theirs(request):
    docs = request.config.rootpath / "docs"
    results = json.loads((docs / "compatibility.json").read_text())
    assert set(results["releases"]) == set(SUPPORTED)
    assert {one["version"] for one in results["requirements"].values()} == set(RESOLVED)
    assert (docs / "compatibility.md").read_text() == page(results)

"""What the builds of servers' images do, done here without a container engine: vLLM stays as it was, and finds us.

The environment that stands for vLLM's image has the packages of the one that runs the tests, all but Introspan.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from introspan.config import load
from tests.deploy.dockerfile import stages
from tests.deploy.rendered import KUBERNETES, ROOT

_UV = Path(sys.executable).with_name("uv")
_DERIVED = stages(ROOT / "deploy" / "examples" / "vllm.Dockerfile")
_LENT = stages(ROOT / "deploy" / "init-container" / "Dockerfile")
_DEPLOYMENT = yaml.safe_load((ROOT / "deploy" / "init-container" / "vllm-deployment.yaml").read_text())
_POD = _DEPLOYMENT["spec"]["template"]["spec"]
_LOOK = """
import json
from importlib.metadata import entry_points
(entry,) = entry_points(group="vllm.general_plugins", name="introspan")
from vllm.plugins import load_general_plugins
load_general_plugins()
import introspan, introspan.plugin
from vllm.engine.arg_utils import EngineArgs
print(json.dumps({
    "metadata": str(entry.dist.locate_file("")),
    "package": introspan.__file__,
    "was_called": "pipeline" in introspan.plugin._state,
    "wrapped": hasattr(EngineArgs.create_engine_config, "__wrapped__"),
}))
"""


def ran(command, folder, places):
    """Runs an instruction as a build does, with its places below ours, and says how it ended."""
    for place, ours in places.items():
        command = command.replace(place, str(ours))
    environment = {**os.environ, "PATH": f"{_UV.parent}:/usr/bin:/bin"}
    environment.pop("VIRTUAL_ENV", None)
    return subprocess.run(
        ["bash", "-euc", command], capture_output=True, text=True, cwd=folder, env=environment, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the wheel is, and the package that is lent, by the first stage's own instructions."""
    folder = tmp_path_factory.mktemp("images")
    # Of a copy: a build leaves things behind where its sources are.
    names = [name for arguments in _LENT["build"].all("COPY") for name in arguments.split()[:-1]]
    for name in names:
        source, target = ROOT / name, folder / "src" / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(source, target)
    places = {"/usr/local/bin/python3": sys.executable, "/wheels": folder / "wheels", "/sdk": folder / "sdk"}
    for command in _LENT["build"].all("RUN"):
        if not command.startswith("pip install"):  # of uv, which is there
            done = ran(command.replace(" --no-cache", ""), folder / "src", places)
            assert done.returncode == 0, done.stderr
    return folder


def image(place, without=()):
    """The site-packages of an environment like the one that runs the tests, less what the names begin with."""
    subprocess.run([_UV, "venv", "--quiet", "--offline", "--python", sys.executable, place], check=True)
    (site,) = place.glob("lib/python3*/site-packages")
    for found in Path(sysconfig.get_path("purelib")).iterdir():
        if not found.name.startswith(("introspan", "_editable_impl_introspan", "_virtualenv", *without)):
            if found.suffix == ".dist-info":  # uv takes no link for an installed package
                shutil.copytree(found, site / found.name)
            else:
                (site / found.name).symlink_to(found)
    return site


def derived(folder, place):
    """How the last step of the derived image ends, in an environment that stands for vLLM's."""
    (command,) = _DERIVED["vllm"].all("RUN")
    mount, _, command = command.partition(" uv ")
    assert "from=build,source=/wheels,target=/wheels" in mount
    python = place / "bin" / "python"
    places = {"--system": f"--python {python}", "python3 -c": f"{python} -c", "/wheels": folder / "wheels"}
    # Where packages are on this machine is no business of an image's build.
    return ran(f"unset UV_FIND_LINKS; uv {command}", folder, places)


def distributions(site):
    return {path.name for path in site.glob("*.dist-info")}


def look(place, **environ):
    """What a Python of this environment says of the plugin that vLLM loads."""
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("INTROSPAN_", "OTEL_", "PYTHONPATH"))
    }
    done = subprocess.run(
        [place / "bin" / "python", "-c", _LOOK],
        capture_output=True,
        text=True,
        cwd="/",
        env={**environment, **environ},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_derived_image_has_the_plugin_and_else_exactly_what_vllms_has(folder, tmp_path):
    site = image(tmp_path / "env")
    before = distributions(site)
    done = derived(folder, tmp_path / "env")
    assert done.returncode == 0, done.stderr
    (added,) = distributions(site) - before
    assert added.startswith("introspan-")
    assert before < distributions(site)


def test_an_image_that_lacks_what_is_required_fails_in_its_build_and_names_it(folder, tmp_path):
    site = image(tmp_path / "env", without=("grpcio-",))
    before = distributions(site)
    done = derived(folder, tmp_path / "env")
    assert done.returncode != 0
    assert "grpcio" in done.stderr
    assert distributions(site) == before


def test_user_and_entry_point_of_vllms_image_stay_as_they_are():
    assert {kind for kind, _ in _DERIVED["vllm"].instructions} == {"RUN"}


def test_what_is_lent_is_python_alone_and_small(folder):
    files = [path for path in (folder / "sdk").rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix == ".so"]
    assert sum(path.stat().st_size for path in files) < 16 * 2**20


def test_vllm_finds_and_loads_the_plugin_that_an_init_container_lent_it(folder, tmp_path):
    image(tmp_path / "env")
    lent = tmp_path / "introspan"
    lent.mkdir()
    copy = " ".join(json.loads(_LENT["sdk"].last("ENTRYPOINT")))
    done = ran(copy, tmp_path, {"/sdk": folder / "sdk", "/introspan": lent})
    assert done.returncode == 0, done.stderr
    found = look(tmp_path / "env", PYTHONPATH=str(lent))
    assert Path(found["metadata"]) == lent
    assert Path(found["package"]).is_relative_to(lent)
    assert found["was_called"]
    assert found["wrapped"]


def test_the_folder_that_is_lent_is_where_python_looks_for_it():
    (init,) = _POD["initContainers"]
    (server,) = _POD["containers"]
    target = json.loads(_LENT["sdk"].last("ENTRYPOINT"))[-1]
    environment = {one["name"]: one["value"] for one in server["env"]}
    assert environment["PYTHONPATH"] == target
    (volume,) = _POD["volumes"]
    for container in (init, server):
        (mount,) = container["volumeMounts"]
        assert (mount["name"], mount["mountPath"]) == (volume["name"], target)
    assert server["volumeMounts"][0]["readOnly"]


def test_the_init_container_has_no_rights():
    (init,) = _POD["initContainers"]
    assert int(_LENT["sdk"].last("USER").partition(":")[0]) > 0
    context = init["securityContext"]
    assert context["runAsNonRoot"]
    assert context["readOnlyRootFilesystem"]
    assert not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}


def test_the_deployment_is_one_that_kubernetes_takes_and_switches_capture_on():
    kubernetes_validate.validate(_DEPLOYMENT, KUBERNETES, strict=True)
    (server,) = _POD["containers"]
    environment = {one["name"]: one["value"] for one in server["env"]}
    settings = load({key: value for key, value in environment.items() if key.startswith("INTROSPAN_")})
    assert settings.off_because is None


def test_vllms_image_is_the_one_that_the_other_examples_begin_with():
    (server,) = _POD["containers"]
    dockerfile = (ROOT / "deploy" / "examples" / "vllm.Dockerfile").read_text()
    assert f"ARG VLLM_IMAGE={server['image']}\n" in dockerfile

"""The examples are objects that Kubernetes takes, and set up what is captured."""

import importlib.util
import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from introspan.config import load
from tests.deploy.rendered import KUBERNETES, ROOT

_EXAMPLES = {
    path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "deploy" / "examples").glob("*.yaml")
}


# What of an engine's speed a user would give up for being measured.
_CHOOSING = {"--no-async-scheduling", "--async-scheduling", "--enforce-eager", "--compilation-config", "-O"}


def containers(example):
    """The vLLM containers of an example, as Kubernetes has them in the end."""
    if "servingEngineSpec" in example:
        for model in example["servingEngineSpec"]["modelSpec"]:
            image = f"{model['repository']}:{model['tag']}"
            arguments = ["serve", model["modelURL"], *model.get("vllmConfig", {}).get("extraArgs", [])]
            yield {"name": "vllm", "image": image, "args": arguments, "env": model["env"]}
    elif example["kind"] == "InferenceService":
        yield from example["spec"]["predictor"]["containers"]
    else:
        yield from example["spec"]["template"]["spec"]["containers"]


def test_the_deployment_is_one_that_kubernetes_takes():
    kubernetes_validate.validate(_EXAMPLES["vllm-deployment"], KUBERNETES, strict=True)


@pytest.mark.parametrize("name", _EXAMPLES)
def test_its_container_is_one_that_kubernetes_takes(name):
    (container,) = containers(_EXAMPLES[name])
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [container]}}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", _EXAMPLES)
def test_it_switches_capture_on_and_leaves_runner_scheduling_and_graphs_to_vllm(name):
    (container,) = containers(_EXAMPLES[name])
    environment = {one["name"]: one["value"] for one in container["env"]}
    settings = load({key: value for key, value in environment.items() if key.startswith("INTROSPAN_")})
    assert settings.off_because is None
    assert not [variable for variable in environment if variable.startswith("VLLM_")]
    assert not _CHOOSING & set(container["args"])


def test_vllm_has_the_option_and_the_variable_that_the_quickstart_names():
    said = (ROOT / "docs" / "quickstart.md").read_text()
    assert "`VLLM_USE_V2_MODEL_RUNNER=0`" in said
    assert "`--no-async-scheduling`" in said
    found = importlib.util.find_spec("vllm")
    assert found
    folder = Path(found.origin).parent
    options = (folder / "engine" / "arg_utils.py").read_text()
    assert '"--async-scheduling"' in options, "argparse makes --no-async-scheduling of it"
    assert "VLLM_USE_V2_MODEL_RUNNER" in (folder / "envs.py").read_text()


def test_compose_starts_vllm_as_it_is_tested():
    compose = yaml.safe_load((ROOT / "deploy" / "compose" / "compose.yaml").read_text())
    given = {word.partition("=")[0] for word in compose["services"]["vllm"]["command"]}
    tested = set(re.findall(r'"(--[a-z-]+)"', (ROOT / "demo" / "server.py").read_text()))
    assert given <= tested
    entry = (ROOT / "deploy" / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["python", "-m", "vllm.entrypoints.openai.api_server"]' in entry

"""Values in, the manifests that Helm makes of our chart out."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "introspan"
KUBERNETES = "1.37.0"

_HELM = Path(sys.executable).with_name("helm")

# Any: YAML.
Manifest = dict[str, Any]


class Manifests:
    """What one release consists of."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.all: list[Manifest] = [document for document in yaml.safe_load_all(text) if document]

    def of(self, kind: str) -> list[Manifest]:
        """All of a kind."""
        return [manifest for manifest in self.all if manifest["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> Manifest:
        """The one of a kind, and of a name where it is given."""
        found = [one for one in self.of(kind) if name in (None, one["metadata"]["name"])]
        assert len(found) == 1, (kind, name, [one["metadata"]["name"] for one in found])
        return found[0]

    @property
    def pod(self) -> Manifest:
        """The collector's pod."""
        template: Manifest = self.one("StatefulSet")["spec"]["template"]
        return template

    @property
    def container(self) -> Manifest:
        """The collector's container."""
        (container,) = self.pod["spec"]["containers"]
        found: Manifest = container
        return found

    def services(self) -> Iterator[Manifest]:
        """Every Service."""
        yield from self.of("Service")


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What Helm says; it needs no cluster and has no settings of whoever runs it."""
    with tempfile.TemporaryDirectory() as home:
        return subprocess.run(
            (_HELM, *arguments), capture_output=True, text=True, env={"HOME": home}, check=False
        )


def template(
    values: Mapping[str, Any] | None = None, release: str = "introspan", chart: Path = CHART
) -> subprocess.CompletedProcess[str]:
    """`helm template` with these values, in a namespace called watch."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(dict(values or {}), file)
        file.flush()
        return helm(
            *("template", release, chart, "--namespace", "watch", "--kube-version", KUBERNETES),
            *("--values", file.name),
        )


def rendered(values: Mapping[str, Any] | None = None, release: str = "introspan") -> Manifests:
    """The manifests, where Helm makes some."""
    done = template(values, release)
    assert done.returncode == 0, done.stderr
    return Manifests(done.stdout)


def notes(values: Mapping[str, Any] | None = None, release: str = "introspan") -> str:
    """What Helm says after an installation; without a cluster it would say nothing, so a copy of the chart says it."""
    with tempfile.TemporaryDirectory() as folder:
        chart = Path(folder) / CHART.name
        shutil.copytree(CHART, chart)
        (chart / "templates" / "said.yaml").write_text(
            'kind: Said\nmetadata: {name: a}\ntext: {{ include (print $.Template.BasePath "/NOTES.txt") . | toJson }}\n'
        )
        done = template(values, release, chart)
    assert done.returncode == 0, done.stderr
    text: str = Manifests(done.stdout).one("Said")["text"]
    return text

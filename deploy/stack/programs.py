"""Addresses and a folder in, the commands of collector, Prometheus and Alertmanager with the delivered files out."""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from demo.processes import DemoError
from deploy.stack.addresses import Addresses

_DEPLOY = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Command:
    """A program that is to run; ready is what answers once it works."""

    name: str
    words: tuple[str | Path, ...]
    ready: str


def commands(at: Addresses, data: Path, scratch: Path) -> tuple[Command, ...]:
    """All three, in the order in which they are started. Raises DemoError for one that is not installed."""
    return (_alertmanager(at, data), _collector(at, data, scratch), _prometheus(at, data, scratch))


def _alertmanager(at: Addresses, data: Path) -> Command:
    words = (
        _program("prometheus-alertmanager", "prometheus-alertmanager"),
        f"--config.file={_DEPLOY / 'alertmanager' / 'alertmanager.yml'}",
        f"--storage.path={data / 'alertmanager'}",
        f"--web.listen-address={at.alertmanager}",
        # One alone has no peers to look for.
        "--cluster.listen-address=",
    )
    return Command("alertmanager", words, f"http://{at.alertmanager}/-/ready")


def _collector(at: Addresses, data: Path, scratch: Path) -> Command:
    config = scratch / "collector.toml"
    config.write_text(
        f'[notify]\nalertmanagers = ["http://{at.alertmanager}"]\npage_url = "http://{at.collector}"\n',
        encoding="utf-8",
    )
    words = (
        *(Path(sys.executable).with_name("introspan"), "collector", "--config", config),
        *("--data", data / "collector", "--grpc", at.grpc, "--http", at.collector),
    )
    return Command("collector", words, f"http://{at.collector}/readyz")


def _prometheus(at: Addresses, data: Path, scratch: Path) -> Command:
    """It reads targets beside its configuration: a copy of the folder, in which they are those that listen."""
    folder = scratch / "prometheus"
    shutil.copytree(_DEPLOY / "prometheus", folder)
    for name, address in (("collectors", at.collector), ("alertmanagers", at.alertmanager)):
        # JSON is YAML as well.
        (folder / "targets" / f"{name}.yml").write_text(
            json.dumps([{"targets": [address]}]), encoding="utf-8"
        )
    words = (
        _program("prometheus", "prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={data / 'prometheus'}",
        f"--web.listen-address={at.prometheus}",
        "--enable-feature=exemplar-storage",
    )
    return Command("prometheus", words, f"http://{at.prometheus}/-/ready")


def _program(name: str, package: str) -> Path:
    beside = Path(sys.executable).with_name(name)
    found = beside if beside.exists() else shutil.which(name)
    if found is None:
        raise DemoError(f"{name} is not installed: run make stack as root, or apt-get install {package}")
    return Path(found)

"""The delivered rules and routes in; a real Prometheus and a real Alertmanager that are in a hurry out."""

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from demo.processes import start
from tests.deploy.rules import DEPLOY
from tests.patience import until_answering

_STOP_SECONDS = 20.0


# Any: YAML, as it is.
def routes(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A route and all below it."""
    yield tree
    for route in tree.get("routes", ()):
        yield from routes(route)


ALONE = ("--cluster.listen-address=",)


@contextmanager
def alertmanager(
    program: Path,
    folder: Path,
    port: int,
    hook_url: str,
    *,
    inhibiting: bool,
    cluster: Sequence[str] = ALONE,
) -> Iterator[str]:
    """The delivered routes; each receiver calls hook_url/<its name>. It waits a second at a time."""
    content = yaml.safe_load((DEPLOY / "alertmanager" / "alertmanager.yml").read_text())
    for route in routes(content["route"]):
        route |= {"group_wait": "1s", "group_interval": "1s", "repeat_interval": "1h"}
    for receiver in content["receivers"]:
        if receiver["name"] != "nobody":
            receiver["webhook_configs"] = [{"url": f"{hook_url}/{receiver['name']}", "send_resolved": True}]
    if not inhibiting:
        del content["inhibit_rules"]
    folder.mkdir(parents=True)
    file = folder / "alertmanager.yml"
    file.write_text(yaml.safe_dump(content))
    address = f"127.0.0.1:{port}"
    command = (
        program,
        f"--config.file={file}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address={address}",
        *cluster,
    )
    with start("alertmanager", command, {}, folder, _STOP_SECONDS) as started:
        until_answering(started, f"http://{address}/-/ready")
        yield address


@contextmanager
def prometheus(
    program: Path, folder: Path, port: int, collectors: Sequence[str], peers: Sequence[str]
) -> Iterator[str]:
    """The delivered configuration and rules, each second; what takes minutes there, takes seconds here."""
    copy = folder / "prometheus"
    shutil.copytree(DEPLOY / "prometheus", copy)
    file = copy / "prometheus.yml"
    file.write_text(file.read_text().replace(": 15s", ": 1s"))
    for rules in copy.glob("rules/*.yml"):
        rules.write_text(re.sub(r"(for: |\[)(\d+)m", r"\1\2s", rules.read_text()))
    for name, addresses in (("collectors", collectors), ("alertmanagers", peers)):
        (copy / "targets" / f"{name}.yml").write_text(yaml.safe_dump([{"targets": list(addresses)}]))
    address = f"127.0.0.1:{port}"
    command = (
        program,
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={address}",
        # What fires before Alertmanagers are discovered is lost, and said again after this.
        "--rules.alert.resend-delay=1s",
    )
    with start("prometheus", command, {}, folder, _STOP_SECONDS) as started:
        until_answering(started, f"http://{address}/-/ready")
        yield address

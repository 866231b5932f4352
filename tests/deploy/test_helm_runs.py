"""The collector started as the chart's pod starts it, with every secret mounted, does what the values say."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import httpx
import pytest

from introspan_wire.v1 import observation_pb2 as pb
from introspan_wire.v1 import observation_service_pb2 as service_pb
from introspan_wire.v1 import observation_service_pb2_grpc as service_grpc
from tests.deploy.rendered import rendered
from tests.deploy.value_sets import VALUE_SETS
from tests.integration.certificates import certify
from tests.patience import eventually

_REQUEST = service_pb.ExportObservationsRequest(
    resource=pb.Resource(model_name="model", replica="r"), producer_id=bytes(16), sequence=1
)
_SECRET = "a secret of more than sixteen characters"


class Pod:
    """Files where the pod has its volumes, below a folder; and the container's command on free ports."""

    def __init__(self, folder, release, free_port):
        self.folder, self.release = folder, release
        self.ports = {name: free_port() for name in ("grpc", "http")}
        self.server, self.server_key = certify(folder, "server")
        self.client, self.client_key = certify(folder, "client")
        mounts = {mount["name"]: mount["mountPath"] for mount in release.container["volumeMounts"]}
        for volume in [*release.pod["spec"]["volumes"], {"name": "data"}]:
            there = self.moved(mounts[volume["name"]])
            there.mkdir(parents=True, exist_ok=True)
            for name, text in self.files(volume):
                (there / name).write_text(text)

    def moved(self, path):
        return self.folder / path.lstrip("/")

    def files(self, volume):
        if "configMap" in volume:
            for name, text in self.release.one("ConfigMap", volume["configMap"]["name"])["data"].items():
                yield name, re.sub(r'"(/etc/[^"]+)"', lambda found: f'"{self.moved(found[1])}"', text)
        if "secret" in volume:
            # As cert-manager writes it; here the authority of clients is a client itself.
            yield "tls.crt", self.server.read_text()
            yield "tls.key", self.server_key.read_text()
            yield "ca.crt", self.client.read_text()
        for source in volume.get("projected", {}).get("sources", ()):
            for item in source["secret"]["items"]:
                yield item["path"], self.server.read_text() if item["path"].endswith("Ca") else f"{_SECRET}\n"

    def command(self):
        for argument in self.release.container["args"]:
            name, _, value = argument.partition("=")
            port = self.ports.get(name.removeprefix("--"))
            yield name
            yield str(self.moved(value)) if port is None else f"127.0.0.1:{port}"

    def url(self, path):
        return f"http://127.0.0.1:{self.ports['http']}{path}"

    def export(self, *, token=_SECRET, certificate=True):
        chain, key = (self.client.read_bytes(), self.client_key.read_bytes()) if certificate else (None, None)
        credentials = grpc.ssl_channel_credentials(self.server.read_bytes(), key, chain)
        with grpc.secure_channel(f"127.0.0.1:{self.ports['grpc']}", credentials) as channel:
            metadata = (("authorization", f"Bearer {token}"),)
            stub = service_grpc.ObservationServiceStub(channel)
            return stub.ExportObservations(_REQUEST, timeout=10, metadata=metadata)


@pytest.fixture(scope="module")
def pod(tmp_path_factory, free_port):
    folder = tmp_path_factory.mktemp("pod")
    pod = Pod(folder, rendered(VALUE_SETS["everything on"]), free_port)
    with (folder / "log").open("wb") as log:
        program = Path(sys.executable).with_name("introspan")
        process = subprocess.Popen([program, "collector", *pod.command()], stdout=log, stderr=log, cwd=folder)
        try:
            probe = pod.release.container["readinessProbe"]["httpGet"]["path"]
            eventually(lambda: process.poll() is not None or httpx.get(pod.url(probe)).is_success, 60)
            assert process.poll() is None, (folder / "log").read_text()
            yield pod
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, (folder / "log").read_text()
            patience_seconds = pod.release.pod["spec"]["terminationGracePeriodSeconds"]
            assert time.monotonic() - began < patience_seconds / 2
        finally:
            process.kill()
            process.wait()


def test_every_probe_finds_it_well(pod):
    for which in ("startup", "readiness", "liveness"):
        path = pod.release.container[f"{which}Probe"]["httpGet"]["path"]
        assert httpx.get(pod.url(path)).is_success


def test_only_who_has_token_and_certificate_may_send(pod):
    assert pod.export() == service_pb.ExportObservationsResponse()
    with pytest.raises(grpc.RpcError) as refusal:
        pod.export(token="another")
    assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(grpc.RpcError):
        pod.export(certificate=False)


def test_who_changes_something_needs_the_other_token(pod):
    window = {"start": time.time(), "end": time.time() + 60, "reason": "deploy"}
    address = pod.url("/api/v1/maintenance")
    assert httpx.post(address, json=window).status_code == httpx.codes.UNAUTHORIZED
    answer = httpx.post(address, json=window, headers={"authorization": f"Bearer {_SECRET}"})
    assert answer.is_success, answer.text


def test_everything_that_is_kept_is_on_the_volume(pod):
    args = dict(zip(*[iter(pod.command())] * 2, strict=True))
    data = Path(args["--data"])
    assert data == pod.moved("/var/lib/introspan")
    assert {"log", "cursors"} <= {path.name for path in data.iterdir()}

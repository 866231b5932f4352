"""A collector with certificates: it proves who it is, and lets in only whom its authority signed."""

import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from introspan_wire.v1 import observation_pb2 as pb
from introspan_wire.v1 import observation_service_pb2 as service_pb
from introspan_wire.v1 import observation_service_pb2_grpc as service_grpc
from tests.collector import Collector
from tests.integration.certificates import certify

REQUEST = service_pb.ExportObservationsRequest(
    resource=pb.Resource(model_name="model", replica="r"), producer_id=bytes(16), sequence=1
)


def export(address, roots, certificate=None, key=None):
    read = lambda path: None if path is None else path.read_bytes()  # noqa: E731 used thrice
    credentials = grpc.ssl_channel_credentials(read(roots), read(key), read(certificate))
    with grpc.secure_channel(address, credentials) as channel:
        return service_grpc.ObservationServiceStub(channel).ExportObservations(REQUEST, timeout=10)


def test_only_clients_with_a_signed_certificate_get_in_and_only_over_tls(tmp_path, free_port):
    server, key = certify(tmp_path, "server")
    client, client_key = certify(tmp_path, "client")
    stranger, stranger_key = certify(tmp_path, "stranger")
    files = {"certificate": server, "key": key, "client_ca": client}
    settings = "".join(f'tls_{name}_file = "{path}"\n' for name, path in files.items())
    with Collector(tmp_path, free_port, f"[accept]\n{settings}") as collector:
        assert export(collector.grpc, server, client, client_key) == service_pb.ExportObservationsResponse()
        for certificate, own_key in ((None, None), (stranger, stranger_key)):
            with pytest.raises(grpc.RpcError):
                export(collector.grpc, server, certificate, own_key)
        with pytest.raises(grpc.RpcError):
            export(collector.grpc, stranger, client, client_key)
        with grpc.insecure_channel(collector.grpc) as channel, pytest.raises(grpc.RpcError):
            service_grpc.ObservationServiceStub(channel).ExportObservations(REQUEST, timeout=10)
        assert collector.metric("introspan_collector_accepted_batches_total") == 1


MISTAKES = {
    "the key of another": ("server.pem", "stranger.key", None, "accept.tls_key_file ="),
    "no key": ("server.pem", "server.pem", None, "accept.tls_key_file ="),
    "no certificate": ("nonsense", "server.key", None, "accept.tls_certificate_file ="),
    "no authority": ("server.pem", "server.key", "nonsense", "accept.tls_client_ca_file ="),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_certificates_that_cannot_be_used_end_the_collector_at_its_start(mistake, tmp_path):
    for name in ("server", "stranger"):
        certify(tmp_path, name)
    (tmp_path / "nonsense").write_text("nonsense")
    *files, named = MISTAKES[mistake]
    keys = ("certificate", "key", "client_ca")
    given = [f'tls_{key}_file = "{tmp_path / file}"' for key, file in zip(keys, files, strict=True) if file]
    config = tmp_path / "collector.toml"
    config.write_text("\n".join(["[accept]", *given, ""]))
    program = Path(sys.executable).with_name("introspan")
    where = ("--data", tmp_path / "data", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0")
    done = subprocess.run(
        [program, "collector", "--config", config, *where],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert named in done.stderr
    assert "cannot be bound" not in done.stderr
    assert "Traceback" not in done.stderr

"""Claims on the exporter over TLS: it proves who it is, and speaks only to whom it trusts."""

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from introspan.config import load
from introspan.export import Exporter
from introspan.observation import CaptureStatus, Observation, Resource
from introspan_wire.codec import Column, Schema
from introspan_wire.signals import Kind, Statistic
from introspan_wire.v1 import observation_service_pb2 as service_pb
from introspan_wire.v1 import observation_service_pb2_grpc as service_grpc

SCHEMA = Schema(Kind.PROMPT, (Column("output.entropy", Statistic.LAST),))
RESOURCE = Resource("chat", "r0", "tiny", "f" * 64, "vllm", "0.32.0", "float32", 50, 1, "0.1.0")
ONE = Observation(
    SCHEMA, "cmpl-0", bytes(16), bytes(8), 0, "", 0, 1, 1, 1, 2, 0, 1, 1.0, np.ones(1, np.float32)
)


def certify(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


@pytest.fixture
def secure(tmp_path):
    """A collector that asks for a client certificate; (port, requests, what identifies client and server)."""
    requests: list[service_pb.ExportObservationsRequest] = []

    class Servicer(service_grpc.ObservationServiceServicer):
        def ExportObservations(self, request, _context):  # noqa: N802 - the name of the RPC
            requests.append(request)
            return service_pb.ExportObservationsResponse()

    certificate, key = certify(tmp_path, "collector")
    client_certificate, client_key = certify(tmp_path, "client")
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())],
        root_certificates=client_certificate.read_bytes(),
        require_client_auth=True,
    )
    server = grpc.server(ThreadPoolExecutor(2))
    service_grpc.add_ObservationServiceServicer_to_server(Servicer(), server)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    files = {
        "INTROSPAN_CERTIFICATE": str(certificate),
        "INTROSPAN_CLIENT_CERTIFICATE": str(client_certificate),
        "INTROSPAN_CLIENT_KEY": str(client_key),
    }
    yield port, requests, files
    server.stop(0).wait()


def export(environ: dict[str, str]) -> dict[str, int]:
    exporter = Exporter(
        load({"INTROSPAN_TIMEOUT": "0.5", **environ}), RESOURCE, CaptureStatus, print, tick_seconds=0.05
    )
    exporter.offer(ONE)
    time.sleep(1.0)
    exporter.close()
    return exporter.drops


@pytest.mark.parametrize("scheme", ["https://", ""])
def test_a_collector_that_knows_the_client_gets_its_observations(secure, scheme):
    port, requests, files = secure
    assert export({"INTROSPAN_ENDPOINT": f"{scheme}127.0.0.1:{port}", **files}) == {}
    assert [request.tables[0].request_id[0] for request in requests] == ["cmpl-0"]


def test_a_collector_of_another_authority_gets_nothing(secure, tmp_path):
    port, requests, files = secure
    stranger, _ = certify(tmp_path, "stranger")
    environ = {"INTROSPAN_ENDPOINT": f"127.0.0.1:{port}", **files, "INTROSPAN_CERTIFICATE": str(stranger)}
    assert export(environ) == {"unavailable": 1}
    assert requests == []


def test_a_client_without_its_certificate_is_turned_away_and_says_so(secure):
    port, requests, files = secure
    environ = {
        "INTROSPAN_ENDPOINT": f"127.0.0.1:{port}",
        "INTROSPAN_CERTIFICATE": files["INTROSPAN_CERTIFICATE"],
    }
    assert export(environ) == {"unavailable": 1}
    assert requests == []


def test_a_certificate_that_vanished_since_the_start_is_counted_not_fatal(secure, tmp_path):
    port, requests, files = secure
    exporter = Exporter(
        load({"INTROSPAN_ENDPOINT": f"127.0.0.1:{port}", **files}),
        RESOURCE,
        CaptureStatus,
        print,
        tick_seconds=0.05,
    )
    (tmp_path / "collector.pem").unlink()
    exporter.offer(ONE)
    time.sleep(0.5)
    exporter.close()
    assert exporter.drops == {"tls_files": 1}
    assert requests == []

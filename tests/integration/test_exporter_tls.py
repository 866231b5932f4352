"""Claims on the exporter over TLS: it proves who it is, and speaks only to whom it trusts."""

import time

import grpc
import pytest

from tests.integration.certificates import certify
from tests.integration.exporting import exporting, offer
from tests.integration.scripted_collector import ScriptedCollector


@pytest.fixture
def secure(tmp_path):
    """A collector that asks for a client certificate, and what identifies client and server to each other."""
    certificate, key = certify(tmp_path, "collector")
    client_certificate, client_key = certify(tmp_path, "client")
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())],
        root_certificates=client_certificate.read_bytes(),
        require_client_auth=True,
    )
    files = {
        "INTROSPAN_CERTIFICATE": str(certificate),
        "INTROSPAN_CLIENT_CERTIFICATE": str(client_certificate),
        "INTROSPAN_CLIENT_KEY": str(client_key),
    }
    with ScriptedCollector(credentials=credentials) as collector:
        yield collector, files


def export(collector: ScriptedCollector, environ: dict[str, str]) -> dict[str, int]:
    """Offers one observation, and gives what was dropped by the end."""
    with exporting(collector.port, environ={"INTROSPAN_TIMEOUT": "0.5", **environ}) as exporter:
        offer(exporter, 1)
        time.sleep(1.0)
    return exporter.drops


@pytest.mark.parametrize("scheme", ["https://", ""])
def test_a_collector_that_knows_the_client_gets_its_observations(secure, scheme):
    collector, files = secure
    endpoint = {"INTROSPAN_ENDPOINT": f"{scheme}127.0.0.1:{collector.port}"}
    assert export(collector, files | endpoint) == {}
    assert collector.segments() == [("cmpl-0", 0)]


def test_a_collector_of_another_authority_gets_nothing(secure, tmp_path):
    collector, files = secure
    stranger, _ = certify(tmp_path, "stranger")
    assert export(collector, files | {"INTROSPAN_CERTIFICATE": str(stranger)}) == {"unavailable": 1}
    assert collector.received == []


def test_a_client_without_its_certificate_is_turned_away_and_says_so(secure):
    collector, files = secure
    trusting = {"INTROSPAN_CERTIFICATE": files["INTROSPAN_CERTIFICATE"]}
    assert export(collector, trusting) == {"unavailable": 1}
    assert collector.received == []


def test_a_certificate_that_vanished_since_the_start_is_counted_not_fatal(secure, tmp_path):
    collector, files = secure
    with exporting(collector.port, environ=files) as exporter:
        (tmp_path / "collector.pem").unlink()
        offer(exporter, 1)
        time.sleep(0.5)
    assert exporter.drops == {"tls_files": 1}
    assert collector.received == []

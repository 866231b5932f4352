"""Names of files from the settings in, certificates and the token out."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from introspan_collector.config import AcceptSettings, ConfigurationError


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates in PEM. With client_ca set, clients must present a certificate that it signed."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None


def load_tls(settings: AcceptSettings) -> Tls | None:
    """The certificates, None where TLS is off. Raises ConfigurationError."""
    certificate = _read(settings.tls_certificate_file, "accept.tls_certificate_file")
    key = _read(settings.tls_key_file, "accept.tls_key_file")
    client_ca = _read(settings.tls_client_ca_file, "accept.tls_client_ca_file")
    if certificate is None or key is None:
        return None
    _check(settings)
    return Tls(certificate, key, client_ca)


def load_token(settings: AcceptSettings) -> str | None:
    """The token that producers must send, None where anybody may. Raises ConfigurationError."""
    data = _read(settings.bearer_token_file, "accept.bearer_token_file")
    if data is None:
        return None
    token = data.decode(errors="replace").strip()
    if not token:
        raise ConfigurationError(f"accept.bearer_token_file = {settings.bearer_token_file} is empty")
    return token


def _check(settings: AcceptSettings) -> None:
    """Raises ConfigurationError where gRPC would say of the address that it cannot be bound."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate, key, client_ca = (
        settings.tls_certificate_file,
        settings.tls_key_file,
        settings.tls_client_ca_file,
    )
    assert certificate is not None, "settings demand both"
    try:
        # With an empty password a key that needs one is an error; without, OpenSSL would ask for it at the terminal.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"accept.tls_certificate_file = {certificate} and accept.tls_key_file = {key} cannot be used "
            f"({error.reason}): give a certificate and its own key, both in PEM and the key without a password"
        ) from error
    if client_ca is None:
        return
    try:
        context.load_verify_locations(client_ca)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"accept.tls_client_ca_file = {client_ca} cannot be used ({error.reason}): give certificates in PEM"
        ) from error


def _read(path: Path | None, key: str) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{key} = {path} cannot be read: {error.strerror}") from error

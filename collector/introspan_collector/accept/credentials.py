"""Names of files from the settings in, certificates and the token out."""

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
    return None if certificate is None or key is None else Tls(certificate, key, client_ca)


def load_token(settings: AcceptSettings) -> str | None:
    """The token that producers must send, None where anybody may. Raises ConfigurationError."""
    data = _read(settings.bearer_token_file, "accept.bearer_token_file")
    if data is None:
        return None
    token = data.decode(errors="replace").strip()
    if not token:
        raise ConfigurationError(f"accept.bearer_token_file = {settings.bearer_token_file} is empty")
    return token


def _read(path: Path | None, key: str) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{key} = {path} cannot be read: {error.strerror}") from error

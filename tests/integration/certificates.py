"""A name in, a self-signed certificate for loopback and its key out."""

import subprocess
from pathlib import Path

_EC_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def certify(folder: Path, name: str) -> tuple[Path, Path]:
    """Files of a certificate for 127.0.0.1 and of its key, both in PEM."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subject = ("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2")
    command = ("openssl", "req", "-x509", *_EC_KEY, *subject, "-keyout", key, "-out", certificate)
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key

"""Arrays and a header in, bytes that notice any damage out — and back."""

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DIGEST_BYTES = 16


# Any: what JSON can hold, and arrays of any type.
def dump(what: str, version: int, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes of a state; `what` and version are checked when it is loaded."""
    text = json.dumps({"what": what, "version": version, **header}).encode()
    # Any: savez has a keyword of its own among those that name arrays.
    named: dict[str, Any] = {"header": np.frombuffer(text, np.uint8), **arrays}
    buffer = io.BytesIO()
    np.savez(buffer, **named)
    body = buffer.getvalue()
    return _digest(body) + body


def load(what: str, version: int, data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The header and arrays that `dump` was given. Raises ValueError for bytes that it did not make."""
    digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if digest != _digest(body):
        raise ValueError(f"checkpoint of {what} is damaged ({len(data)} bytes): delete it to start anew")
    with np.load(io.BytesIO(body), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header: dict[str, Any] = json.loads(arrays.pop("header").tobytes())
    found = header.pop("what"), header.pop("version")
    if found != (what, version):
        raise ValueError(
            f"checkpoint of {what} is one of {found[0]}, version {found[1]}: delete it to start anew"
        )
    return header, arrays


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()

"""A file's name in, the style, script or picture that pages load out."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from starlette.responses import Response

_FOLDER = Path(__file__).with_name("static")
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Asset(NamedTuple):
    """What is sent, and what tells it from another version."""

    body: bytes
    media_type: str
    etag: str


@lru_cache(maxsize=1)
def assets() -> dict[str, Asset]:
    """Every asset by name. Read once: they are part of the program."""
    found = {}
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix in _TYPES:
            body = path.read_bytes()
            found[path.name] = Asset(body, _TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:16]}"')
    return found


def asset(name: str, headers: Mapping[str, str]) -> Response:
    """The response for one of them; an unknown name is not found."""
    one = assets().get(name)
    if one is None:
        return Response("not found\n", 404, media_type="text/plain")
    # Asked again each time, so that pages of a new version never run scripts of the old one.
    given = {"etag": one.etag, "cache-control": "no-cache", "x-content-type-options": "nosniff"}
    if headers.get("if-none-match") == one.etag:
        return Response(status_code=304, headers=given)
    return Response(one.body, media_type=one.media_type, headers=given)

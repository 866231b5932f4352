"""The text of one setting in, its value out; a ValueError says what the text must be, not which key it is."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

DEFAULT_PORT = 4317
"""Port of OTLP over gRPC, and of Introspan's collector."""

_UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_HEADER = re.compile(r"[a-z0-9_.-]+")


class Endpoint(NamedTuple):
    """Where the collector listens; tls is None where the address had no scheme."""

    target: str
    tls: bool | None


def text_of(value: object) -> str:
    """The text that an environment variable would hold for a value from JSON; None is the empty text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        return ",".join(f"{key}={quote(str(item))}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "".join(f"{item}," for item in value)
    return str(value)


def switch(text: str) -> bool:
    """True for on, false for off, and the other usual spellings."""
    word = text.strip().lower()
    if word in {"on", "true", "1", "yes"}:
        return True
    if word in {"off", "false", "0", "no"}:
        return False
    raise ValueError("must be on or off")


def whole(least: int) -> Callable[[str], int]:
    """A parser of integers that are at least `least`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise ValueError(f"must be an integer ≥ {least}")
        return number

    return parse


def real(low: float, high: float) -> Callable[[str], float]:
    """A parser of numbers from `low` to `high`, both included."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            raise ValueError(f"must be a number from {low:g} to {high:g}")
        return number

    return parse


def size(text: str) -> int:
    """Bytes: a whole number, with a unit (kB, KiB, MB, MiB, …) or without."""
    match = re.fullmatch(r"\s*(\d+)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2] not in _UNITS:
        raise ValueError("must be a number of bytes such as 67108864 or 64MiB")
    return int(match[1]) * _UNITS[match[2]]


def endpoint(text: str) -> Endpoint:
    """A host and port, with http://, https:// or no scheme; the port is 4317 unless given."""
    scheme, separator, _ = text.strip().partition("://")
    try:
        parts = urlsplit(text.strip() if separator else f"//{text.strip()}")
        host, port = parts.hostname, parts.port or DEFAULT_PORT
        extra = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    except ValueError:  # whose words may repeat a password
        host, port, extra = None, 0, True
    if not host or extra or (separator and scheme not in {"http", "https"}):
        raise ValueError("must be host:port, http://host:port or https://host:port, without user or password")
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Endpoint(target, scheme == "https" if separator else None)


def without_userinfo(text: str) -> str:
    """A text in which *** stands for what may be the user and password of an address."""
    start, at, host = text.rpartition("@")
    scheme, separator, _ = start.partition("://")
    return f"{scheme}{separator}***@{host}" if at and separator else f"***@{host}" if at else text


def pairs(text: str) -> tuple[tuple[str, str], ...]:
    """Percent-encoded `key=value` items, separated by commas; the last of equal keys counts."""
    items = [item.partition("=") for item in text.split(",") if item.strip()]
    if not all(separator and key.strip() for key, separator, _ in items):
        raise ValueError("must be key=value, several separated by commas, other commas written %2C")
    return tuple({unquote(key.strip()): unquote(value.strip()) for key, _, value in items}.items())


def headers(text: str) -> tuple[tuple[str, str], ...]:
    """Metadata of RPCs from percent-encoded `key=value` items; names are lowered."""
    found = tuple((key.lower(), value) for key, value in pairs(text))
    for key, value in found:
        if not _HEADER.fullmatch(key) or key.endswith("-bin") or key.startswith("grpc-"):
            raise ValueError("must have names of letters, digits, '-', '_' and '.', without grpc- and -bin")
        if not (value.isascii() and value.isprintable()):
            raise ValueError("must have values of printable ASCII characters")
    return found


def file(text: str) -> Path:
    """An existing file."""
    path = Path(text)
    if not path.is_file():
        raise ValueError("must name a file that exists")
    return path


def compression(text: str) -> str:
    """Either none or gzip."""
    if text not in {"none", "gzip"}:
        raise ValueError("must be none or gzip")
    return text


def salt(text: str) -> bytes:
    """A secret long enough that keys cannot be found by trying."""
    if len(text) < 16:
        raise ValueError("must have at least 16 characters")
    return text.encode()

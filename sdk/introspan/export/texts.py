"""Texts of any length in, texts that every collector takes out: one beyond a limit would cost the whole batch."""

import hashlib
from collections.abc import Mapping
from itertools import islice

from introspan_wire.limits import ATTRIBUTES, DETAIL_CHARACTERS, NAME_CHARACTERS, REASON_CHARACTERS

_DIGEST_CHARACTERS = 8


def name(text: str) -> str:
    """A text that identifies; a long one ends in a digest, so that two which begin alike stay two."""
    text = _encodable(text)
    if len(text) <= NAME_CHARACTERS:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{text[: NAME_CHARACTERS - len(digest) - 1]}~{digest}"


def reason(text: str) -> str:
    """A text that becomes a label of a metric."""
    return _encodable(text)[:REASON_CHARACTERS]


def detail(text: str) -> str:
    """A sentence for a person."""
    return _encodable(text)[:DETAIL_CHARACTERS]


def attributes(given: Mapping[str, str]) -> dict[str, str]:
    """The first attributes, as many as a resource may have."""
    return {name(key): name(value) for key, value in islice(given.items(), ATTRIBUTES)}


def _encodable(text: str) -> str:
    # Half a surrogate pair, from an environment that is not UTF-8, has no encoding.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()

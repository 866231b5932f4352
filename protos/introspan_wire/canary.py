"""How a request says that it is a canary's: an id that names its question, and a token that only its sender can make.

Whoever asks puts the id into the X-Request-Id header and the token into the request's `vllm_xargs` under `XARG`. The
engine's worker believes the id only with the token, so that nobody else's request can pose as a canary.

A token is bound to its id, which names one question of one round, and to ten minutes. Whoever reads it on the way, from
a connection without TLS or a log of request bodies, can within that time send requests of another text with the same
id: the worker takes them for canaries, so that they are missing in the statistics of traffic, and their rows may
spoil that one round: it deviates, and asks for a second. They cannot make the token of another question or round, so
that no second round deviates unless that one's tokens are read as well, nor learn the key, nor spoil a baseline by more
than rounds that are refused because they do not agree. Serve canaries over TLS where that is too much.
"""

import hashlib
import hmac
import re
from typing import NamedTuple

XARG = "introspan_canary"
"""Key of the token in `vllm_xargs`."""

KEY_BYTES = 16
"""A shared key has at least so many bytes."""

VALID_SECONDS = 600
"""How far the clocks of sender and worker may be apart."""

_ID = re.compile(r"canary-(?P<suite>[0-9a-f]{8})-(?P<question>[a-z_]{1,32})-(?P<round>[0-9a-f]{16})")
_TOKEN = re.compile(r"(?P<time>\d{1,15}):(?P<mac>[0-9a-f]{64})")


class CanaryId(NamedTuple):
    """What a canary's request id names: the suite's digest, the question, and the round, each as text."""

    suite: str
    question: str
    round: str

    def __str__(self) -> str:
        return f"canary-{self.suite}-{self.question}-{self.round}"


def find(request_id: str) -> CanaryId | None:
    """The canary's id inside a request id, which an engine may have put something around; None where there is none."""
    found = _ID.search(request_id)
    return None if found is None else CanaryId(**found.groupdict())


def token(key: bytes, canary: CanaryId, now_unix_seconds: float) -> str:
    """The token for one request: seconds since 1970, and the HMAC-SHA256 of them and of the id."""
    time = str(int(now_unix_seconds))
    return f"{time}:{_mac(key, canary, time)}"


def is_genuine(key: bytes, request_id: str, given: object, now_unix_seconds: float) -> bool:
    """Whether a request is a canary's: its id names one, and the token given with it was made with the key, lately."""
    canary = find(request_id)
    found = _TOKEN.fullmatch(given) if isinstance(given, str) else None
    if canary is None or found is None or abs(now_unix_seconds - int(found["time"])) > VALID_SECONDS:
        return False
    return hmac.compare_digest(found["mac"], _mac(key, canary, found["time"]))


def _mac(key: bytes, canary: CanaryId, time: str) -> str:
    return hmac.new(key, f"{time}:{canary}".encode(), hashlib.sha256).hexdigest()

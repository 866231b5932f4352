"""How a request says that it is a canary's: an id that names its question, and a token that only its sender can make.

Whoever asks puts the id into the X-Request-Id header and the token into the request's `vllm_xargs` under `XARG`. The
engine's worker believes the id only with the token, so that nobody else's request can pose as a canary.

A token is bound to its id, which names one question of one round, to the tokens of the prompt as the engine computes
them, to how many are generated at most, to ten minutes and, as long as the worker lives, to one use. The worker takes
it of plain greedy requests without an adapter only. Whoever reads it on the way, from a connection without TLS or a log
of request bodies, can ask the same question with it and nothing else: before the canary's own request, which is then
taken for traffic, or at another data-parallel rank or, within ten minutes, at a worker that was started anew. Other
text, other template and other tools are other tokens, and stay traffic.
"""

import hashlib
import hmac
import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

XARG = "introspan_canary"
"""Key of the token in `vllm_xargs`."""

SIGNED = "canary.signed"
"""Attribute of the resource of whoever asked, "true" where its requests have tokens: states are to come then."""

KEY_BYTES = 16
"""A shared key has at least so many bytes."""

VALID_SECONDS = 600
"""How far the clocks of sender and worker may be apart."""

NONCE_BYTES = 8

_ID = re.compile(r"canary-(?P<suite>[0-9a-f]{8})-(?P<question>[a-z_]{1,32})-(?P<round>[0-9a-f]{16})")
_TOKEN = re.compile(r"(?P<time>\d{1,15}):(?P<nonce>[0-9a-f]{16}):(?P<most>\d{1,9}):(?P<mac>[0-9a-f]{64})")


class CanaryId(NamedTuple):
    """What a canary's request id names: the suite's digest, the question, and the round, each as text."""

    suite: str
    question: str
    round: str

    def __str__(self) -> str:
        return f"canary-{self.suite}-{self.question}-{self.round}"


class Pass(NamedTuple):
    """What a genuine token says: the number it is told from all others by, its last second, and what it is good for.

    most_tokens: that may be generated.
    """

    nonce: str
    expires_unix_seconds: int
    most_tokens: int


def find(request_id: str) -> CanaryId | None:
    """The canary's id inside a request id, which an engine may have put something around; None where there is none."""
    found = _ID.search(request_id)
    return None if found is None else CanaryId(**found.groupdict())


def token(
    key: bytes,
    canary: CanaryId,
    prompt_token_ids: Sequence[int],
    most_tokens: int,
    now_unix_seconds: float,
    nonce: str,
) -> str:
    """The token for one request that has so many tokens generated at most.

    Seconds since 1970, nonce (16 hexadecimal digits), that number, and HMAC-SHA256 of all it is for.
    """
    said = f"{int(now_unix_seconds)}:{nonce}:{most_tokens}"
    return f"{said}:{_mac(key, said, canary, prompt_token_ids)}"


def genuine(
    key: bytes, request_id: str, prompt_token_ids: Sequence[int], given: object, now_unix_seconds: float
) -> Pass | None:
    """What the token says that a request came with; None unless it was made with the key, lately, for this request.

    Whether it was used before, only who keeps the nonces can tell.
    """
    canary = find(request_id)
    found = _TOKEN.fullmatch(given) if isinstance(given, str) else None
    if canary is None or found is None or abs(now_unix_seconds - int(found["time"])) > VALID_SECONDS:
        return None
    said, _, mac = found[0].rpartition(":")
    if not hmac.compare_digest(mac, _mac(key, said, canary, prompt_token_ids)):
        return None
    return Pass(found["nonce"], int(found["time"]) + VALID_SECONDS, int(found["most"]))


def _mac(key: bytes, said: str, canary: CanaryId, prompt_token_ids: Sequence[int]) -> str:
    mac = hmac.new(key, f"{said}:{canary}:".encode(), hashlib.sha256)
    mac.update(struct.pack(f"<{len(prompt_token_ids)}q", *prompt_token_ids))
    return mac.hexdigest()

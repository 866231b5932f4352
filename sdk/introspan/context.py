"""What a request came with in, identifiers for its observations out: trace, cluster key, hash."""

import hashlib
import struct
from collections.abc import Sequence

from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

CLUSTER_PROMPT_TOKENS = 64
"""Tokens at the beginning of a prompt that stand for its caller where nothing else is known."""

_PROPAGATOR = TraceContextTextMapPropagator()


def parse_traceparent(header: str) -> tuple[bytes, bytes] | None:
    """Trace id (16 bytes) and span id (8 bytes) of a W3C traceparent, or None where it is not a valid one."""
    context = _PROPAGATOR.extract({"traceparent": header})
    span = get_current_span(context).get_span_context()
    if not span.is_valid:
        return None
    return span.trace_id.to_bytes(16, "big"), span.span_id.to_bytes(8, "big")


def cluster_key(
    salt: bytes, *, api_key: str | None = None, user: str | None = None, prompt_token_ids: Sequence[int] = ()
) -> int:
    """A 64-bit key that is equal for requests of one caller and tells nothing of who that is.

    The caller is the user, else the API key, which a gateway shares among its users, else the prompt's first
    CLUSTER_PROMPT_TOKENS tokens. Without the salt no guess can be checked; processes with one salt give one key.
    (keyed BLAKE2b, RFC 7693)
    """
    if user:
        kind, identity = b"user", user.encode()
    elif api_key:
        kind, identity = b"api_key", api_key.encode()
    else:
        tokens = prompt_token_ids[:CLUSTER_PROMPT_TOKENS]
        kind, identity = b"prompt", struct.pack(f"<{len(tokens)}q", *tokens)
    key = hashlib.blake2b(salt).digest()  # a BLAKE2b key has at most 64 bytes, a salt any number
    return int.from_bytes(hashlib.blake2b(identity, digest_size=8, key=key, person=kind).digest(), "little")


def request_hash(request_id: str) -> int:
    """A 64-bit hash of a request id, the same in every process: its share of [0, 2⁶⁴) decides on sampling."""
    return int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=8).digest(), "little")


def is_chosen(hash64: int, probability: float) -> bool:
    """Whether a request of that hash is measured; chosen at one probability is chosen at any higher."""
    return hash64 < probability * 2.0**64

"""What the API process knows of a request's caller in; the same in the worker out, carried in `extra_args`.

vLLM drops `traceparent` when its own tracing is off and never sends headers to workers, but sampling parameters
reach them whole. A client may write into `extra_args` too (`vllm_xargs`): `stamp` overrides what is there under our
key, and `read` believes nothing that `stamp` could not have written.
"""

import copy
from dataclasses import dataclass
from typing import Any

from introspan.observation import Again

KEY = "introspan"
"""Our key in `SamplingParams.extra_args`."""

_NO_TRACE = bytes(16)
_NO_SPAN = bytes(8)


@dataclass(frozen=True, slots=True)
class Passport:
    """Who a request belongs to. cluster_key is None where the caller gave neither API key nor user.

    number: names a request that may be sent again, "" for the others; again: that it was, with the token that says so.
    """

    request_id: str
    trace_id: bytes = _NO_TRACE
    span_id: bytes = _NO_SPAN
    cluster_key: int | None = None
    number: str = ""
    again: Again | None = None
    token: str = ""


# Any: vLLM's SamplingParams.
def stamp(params: Any, passport: Passport) -> Any:
    """A copy of the parameters that carries the passport; callers may share one object over requests."""
    stamped = copy.copy(params)
    stamped.extra_args = {
        **(params.extra_args or {}),
        KEY: [
            passport.request_id,
            passport.trace_id.hex(),
            passport.span_id.hex(),
            # As text: a 64-bit number does not survive every serialiser.
            None if passport.cluster_key is None else f"{passport.cluster_key:x}",
            *([passport.number] if passport.number else []),
            *([passport.again.position, passport.again.not_sent, passport.token] if passport.again else []),
        ],
    }
    return stamped


def read(params: Any) -> Passport | None:
    """The passport that parameters carry, or None where they carry none that can be read."""
    carried: Any = (getattr(params, "extra_args", None) or {}).get(KEY, ())
    try:
        request_id, trace, span, cluster, *more = carried
        trace_id, span_id = bytes.fromhex(trace), bytes.fromhex(span)
        caller = None if cluster is None else int(cluster, 16)
        number, again, token = _again(more)
    except (TypeError, ValueError):
        return None
    sized = len(trace_id) == len(_NO_TRACE) and len(span_id) == len(_NO_SPAN) and 0 <= (caller or 0) < 2**64
    if not sized or not isinstance(request_id, str):
        return None
    return Passport(request_id, trace_id, span_id, caller, number, again, token)


# Any: whatever a client may have put in our place.
def _again(more: list[Any]) -> tuple[str, Again | None, str]:
    """Number, mark and token of a request that may be sent again, or was; TypeError or ValueError for others."""
    if not more:
        return "", None, ""
    number, *mark = more
    if not isinstance(number, str):
        raise TypeError(f"a number must be text, got {type(number).__name__}")
    if not mark:
        return number, None, ""
    position, not_sent, token = mark
    if not (type(position) is type(not_sent) is int and isinstance(token, str)):
        raise TypeError(f"a mark must be two whole numbers and a text, got {mark!r}")
    return number, Again(position, not_sent), token

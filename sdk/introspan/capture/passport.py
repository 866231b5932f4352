"""What the API process knows of a request's caller in; the same in the worker out, carried in `extra_args`.

vLLM drops `traceparent` when its own tracing is off and never sends headers to workers, but sampling parameters
reach them whole. A client may write into `extra_args` too (`vllm_xargs`): `stamp` overrides what is there under our
key, and `read` believes nothing that `stamp` could not have written.
"""

import copy
from dataclasses import dataclass
from typing import Any

KEY = "introspan"
"""Our key in `SamplingParams.extra_args`."""

_NO_TRACE = bytes(16)
_NO_SPAN = bytes(8)


@dataclass(frozen=True, slots=True)
class Passport:
    """Who a request belongs to. cluster_key is None where the caller gave neither API key nor user."""

    request_id: str
    trace_id: bytes = _NO_TRACE
    span_id: bytes = _NO_SPAN
    cluster_key: int | None = None


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
        ],
    }
    return stamped


def read(params: Any) -> Passport | None:
    """The passport that parameters carry, or None where they carry none that can be read."""
    carried: Any = (getattr(params, "extra_args", None) or {}).get(KEY, ())
    try:
        request_id, trace, span, cluster = carried
        trace_id, span_id = bytes.fromhex(trace), bytes.fromhex(span)
        caller = None if cluster is None else int(cluster, 16)
    except (TypeError, ValueError):
        return None
    sized = len(trace_id) == len(_NO_TRACE) and len(span_id) == len(_NO_SPAN) and 0 <= (caller or 0) < 2**64
    return Passport(request_id, trace_id, span_id, caller) if sized and isinstance(request_id, str) else None

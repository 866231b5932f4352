"""A request new to the worker in; who it is, and whether it is measured, out."""

import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from introspan.admission import Admission
from introspan.capture.requests.canary_tokens import CanaryTokens
from introspan.capture.requests.engine_stamp import EngineClock
from introspan.capture.requests.passport import Passport, read
from introspan.capture.requests.reprefill_mark import is_genuine
from introspan.context import cluster_key, request_hash
from introspan.observation import Request
from introspan_wire import canary

_CHILD = re.compile(r"(\d+)_(.+)")
_SUFFIX = re.compile(r"-[0-9a-f]{8}$")
LONGEST_ID = 256
"""Characters of a request id that are kept: the client chooses it, and one too long would cost a whole batch."""


class Identity:
    """Names requests as their clients know them, and draws which are measured.

    engine: where several workers measure parts of one request, what makes them do so alike; its salt stands in for an
    empty one, and clock and the admission's should be its own.
    """

    def __init__(
        self,
        salt: bytes,
        admission: Admission,
        canary_key: bytes = b"",
        clock: Callable[[], float] = time.time,
        reprefill_key: bytes = b"",
        drops: Counter[str] | None = None,
        engine: EngineClock | None = None,
    ) -> None:
        self._salt = salt
        self._engine = engine
        self._admission = admission
        self._reprefill_key = reprefill_key
        self._drops: Counter[str] = Counter() if drops is None else drops
        self._canaries = CanaryTokens(canary_key, self._drops, clock)

    # Any: vLLM's NewRequestData.
    def of(self, new: Any) -> Request | None:
        """The request, or None where it is not measured."""
        if self._engine is not None:
            self._engine.hear(new)
        if new.sampling_params is None or new.prompt_token_ids is None:
            return None
        passport = read(new.sampling_params)
        if not self._is_believed(passport):
            return None
        request_id = _external(new.req_id, passport)[:LONGEST_ID]
        drawn = request_hash(request_id)
        again = passport.again if passport is not None else None
        is_canary = again is None and self._is_canary(new, request_id)
        probability = 1.0 if is_canary or again is not None else self._admission.admit(drawn)
        if probability is None:
            return None
        caller = passport.cluster_key if passport is not None else None
        if caller is None:
            salt = self._salt or (self._engine.salt if self._engine is not None else b"")
            caller = cluster_key(salt, prompt_token_ids=new.prompt_token_ids)
        return Request(
            key=new.req_id,
            request_id=request_id,
            trace_id=passport.trace_id if passport is not None else bytes(16),
            span_id=passport.span_id if passport is not None else bytes(8),
            cluster_key=caller,
            adapter=new.lora_request.lora_name if new.lora_request is not None else "",
            prompt_tokens=len(new.prompt_token_ids),
            cached_tokens=int(new.num_computed_tokens),
            sampling_probability=probability,
            hash=drawn,
            is_canary=is_canary,
            number=passport.number if passport is not None else "",
            again=again,
        )

    def _is_believed(self, passport: Passport | None) -> bool:
        """Whether a request that says it is one sent again is: one that only says so would spoil what is compared."""
        if passport is None or passport.again is None:
            return True
        is_ours = bool(self._reprefill_key) and is_genuine(
            self._reprefill_key, passport.number, passport.again, passport.token
        )
        self._drops["reprefill_not_genuine"] += not is_ours
        return is_ours

    # Any: vLLM's NewRequestData.
    def _is_canary(self, new: Any, request_id: str) -> bool:
        token = (getattr(new.sampling_params, "extra_args", None) or {}).get(canary.XARG)
        return token is not None and self._canaries.admit(request_id, new, token)


def _external(worker_id: str, passport: Passport | None) -> str:
    """The client's id; of the n samples of one request, each with its number in front as the engine has it."""
    child = _CHILD.fullmatch(worker_id)
    if passport is None:
        return _SUFFIX.sub("", worker_id)
    if child is not None and child[2].startswith(passport.request_id):
        return f"{child[1]}_{passport.request_id}"
    return passport.request_id

"""Tokens of requests in; which of them make a canary, each once, out."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from introspan.capture.output.sampler import requested
from introspan_wire import canary

REFUSED = "canary_refused"
"""Reason that is counted for a token that was not made for its request, as it is asked, with our key, lately."""

REPEATED = "canary_repeated"
"""Reason that is counted for a token that was used before, or of which that cannot be told any more."""

_MOST_USED = 65_536
"""Tokens remembered: of a round of all questions every half second, for as long as they are valid."""


class CanaryTokens:
    """Lets a request be a canary if its token is genuine and new; what is refused is traffic, and counted by reason.

    Remembers a token until it expires. Where there are more than fit, none is accepted until some have: to forget one
    early would let it be used twice.
    """

    def __init__(
        self,
        key: bytes,
        refused: Counter[str],
        clock: Callable[[], float] = time.time,
        most: int = _MOST_USED,
    ) -> None:
        self._key = key
        self._refused = refused
        self._clock = clock
        self._most = most
        self._expires: dict[str, int] = {}  # by nonce of those that were used

    # Any: vLLM's NewRequestData.
    def admit(self, request_id: str, new: Any, given: object) -> bool:
        """Whether a request that came with this token is a canary. Asked a second time about the same: no."""
        if not self._key:
            return False
        now = self._clock()
        found = canary.genuine(self._key, request_id, new.prompt_token_ids, given, now)
        if found is None or not _is_plain(new, found.most_tokens):
            self._refused[REFUSED] += 1
            return False
        if len(self._expires) >= self._most:
            self._expires = {nonce: until for nonce, until in self._expires.items() if until >= now}
        if found.nonce in self._expires or len(self._expires) >= self._most:
            self._refused[REPEATED] += 1
            return False
        self._expires[found.nonce] = found.expires_unix_seconds
        return True


# Any: as above.
def _is_plain(new: Any, most_tokens: int) -> bool:
    """Whether the likeliest tokens are asked for, so many at most, of the model without an adapter.

    Drawn or pushed into other tokens, the same text would have other states, and they would be taken for a fault.
    """
    asked = requested(new.sampling_params)
    is_greedy = asked.is_greedy and asked.reproducible and new.lora_request is None
    return is_greedy and (new.sampling_params.max_tokens or most_tokens + 1) <= most_tokens

"""A request that the engine's core hands to its workers in; one salt and one clock for all of them out.

Workers that measure parts of one request have to decide alike whether it is measured, and to call its caller by one
name. They are told nothing by one another: whatever is drawn or read off a clock comes with the request, from the
process that hands it to all of them. Read off vLLM 0.32.0, `v1/core/sched/output.py`.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from introspan.patches import Patches

_NAME = "introspan_stamp"


@dataclass(frozen=True, slots=True)
class EngineStamp:
    """What the engine's core says with a request. seconds: its monotonic clock; salt: the same with every request."""

    salt: bytes
    seconds: float
    unix_seconds: float


# Any throughout: vLLM's NewRequestData, which no client can reach.
def follow_core(
    patches: Patches,
    requests: Any,
    salt: bytes | None = None,
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
) -> None:
    """From now on each request that this process makes for workers carries a stamp. requests: their class."""
    drawn = salt or os.urandom(16)

    def around(original: Any) -> Any:
        def from_request(*args: Any, **kwargs: Any) -> Any:
            new = original(*args, **kwargs)
            setattr(new, _NAME, EngineStamp(drawn, clock(), wall_clock()))
            return new

        return from_request

    patches.replace(requests, "from_request", around)


class EngineClock:
    """Time and salt as the last request's stamp says them; the worker's own where requests carry none."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        # Before the first request: when a worker has loaded its model is its own, and must not count.
        self._last = EngineStamp(os.urandom(16), 0.0, 0.0)

    def hear(self, new: Any) -> None:
        """Takes the stamp of a new request."""
        own = EngineStamp(self._last.salt, self._clock(), self._wall_clock())
        self._last = getattr(new, _NAME, own)

    @property
    def salt(self) -> bytes:
        """The engine's."""
        return self._last.salt

    def seconds(self) -> float:
        """Monotonic; stands still between requests."""
        return self._last.seconds

    def unix_seconds(self) -> float:
        """Since the Unix epoch; stands still between requests."""
        return self._last.unix_seconds

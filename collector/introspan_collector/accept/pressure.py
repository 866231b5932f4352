"""How much waits at each place in, "refuse" and why out."""

import os
import time
from collections.abc import Callable
from pathlib import Path

_CHECK_SECONDS = 1.0


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Pressure:
    """Says when taking more would make things worse."""

    def __init__(
        self,
        *,
        max_pending_bytes: int,
        max_lag_bytes: int,
        max_resident_bytes: int,
        lag_bytes: Callable[[], int],
        resident: Callable[[], int] = resident_bytes,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_pending_bytes = max_pending_bytes
        self.max_lag_bytes = max_lag_bytes
        self._max_resident_bytes = max_resident_bytes
        self._lag_bytes = lag_bytes
        self._resident = resident
        self._monotonic = monotonic
        self._resident_now = resident()
        self._checked_at = monotonic()
        self.pending_bytes = 0
        """Bytes received and not yet in the log; the owner adds and subtracts."""

    def must_refuse(self) -> str:
        """The reason to refuse, in snake_case; empty when there is none."""
        if self.pending_bytes > self._max_pending_bytes:
            return "log_behind"
        # Refusing is better than letting retention delete what the consumers have not read.
        if self._lag_bytes() > self.max_lag_bytes:
            return "consumers_behind"
        now = self._monotonic()
        if now - self._checked_at >= _CHECK_SECONDS:
            self._checked_at = now
            self._resident_now = self._resident()
        return "memory" if self._resident_now > self._max_resident_bytes else ""

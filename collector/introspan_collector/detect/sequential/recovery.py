"""Evidence after an alarm in, whether the incident is over out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect import checkpoint
from introspan_collector.detect.sequential.alarm import Alarm
from introspan_collector.detect.sequential.e_detector import TICKET_SECONDS, EDetector
from introspan_collector.detect.sequential.evidence import Stream

_WHAT = "a recovery"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class RecoverySettings:
    """Both must have passed without an alarm of the restarted copy."""

    quiet_seconds: float = 900.0
    quiet_requests: int = 1_000
    ticket_seconds: float = TICKET_SECONDS

    def __post_init__(self) -> None:
        for name in ("quiet_seconds", "quiet_requests", "ticket_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")


class Recovery:
    """A copy of the test restarted at an alarm, on the streams of the model and adapter that it is about.

    Half of the copy's budget is on the streams that carried the alarm, in proportion, and half on all alike: what
    goes on is found sooner than it was found first. A copy that reaches ticket level starts the wait anew.
    """

    def __init__(self, alarm: Alarm, settings: RecoverySettings | None = None) -> None:
        self._settings = settings or RecoverySettings()
        self._about = (alarm.model, alarm.adapter)
        self._carried = {carrier.stream: carrier.share for carrier in alarm.carriers}
        self._copy = EDetector(self._settings.ticket_seconds)
        self._rows = np.zeros(0, np.intp)
        self._quiet_since = alarm.time_seconds
        self._quiet_requests = 0

    def follow(self, streams: Sequence[Stream], bound: NDArray[np.float64]) -> None:
        """From now on these streams, those of others among them: rows of evidence are in their order."""
        about = [(stream.model, stream.adapter) == self._about for stream in streams]
        self._rows = np.flatnonzero(np.array(about, np.bool_))
        mine = [streams[row] for row in self._rows.tolist()]
        live = (bound[self._rows] > 0) & (bound[self._rows] < 1)
        carried = np.array([self._carried.get(stream, 0.0) for stream in mine]) * live
        weight: NDArray[np.float64] = carried + live / max(1, int(live.sum()))
        share = weight / max(1.0, float(weight.sum()))
        self._copy.follow(mine, bound[self._rows], share)

    def update(
        self, x: NDArray[np.float64], requests: int, now: float, growth: NDArray[np.float64] | None = None
    ) -> bool:
        """Whether the incident is over after this tick.

        x, growth: as EDetector.update takes them, for all streams followed; requests: how many of the model and
        adapter came since the last tick; now in seconds.
        """
        if self._copy.update(x[self._rows], now, None if growth is None else growth[self._rows]):
            self._quiet_since, self._quiet_requests = now, 0
            return False
        self._quiet_since = min(self._quiet_since, now)  # a clock that was set back
        self._quiet_requests += requests
        return (
            now - self._quiet_since >= self._settings.quiet_seconds
            and self._quiet_requests >= self._settings.quiet_requests
        )

    def snapshot(self) -> bytes:
        """The whole state."""
        header = {
            "about": self._about,
            "carried": list(self._carried.items()),
            "quiet_since": self._quiet_since,
            "quiet_requests": self._quiet_requests,
        }
        copy = np.frombuffer(self._copy.snapshot(), np.uint8)
        return checkpoint.dump(_WHAT, _VERSION, header, {"copy": copy, "rows": self._rows})

    def restore(self, data: bytes) -> None:
        """Puts a snapshot's state in place of this one. Raises ValueError for one that it cannot read."""
        header, arrays = checkpoint.load(_WHAT, _VERSION, data)
        model, adapter = header["about"]
        self._about = (model, adapter)
        self._carried = {Stream(*fields): share for fields, share in header["carried"]}
        self._quiet_since, self._quiet_requests = header["quiet_since"], header["quiet_requests"]
        self._copy.restore(arrays["copy"].tobytes())
        self._rows = arrays["rows"]

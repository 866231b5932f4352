"""Segments with their sizes and times in, the oldest ones deleted out."""

import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from introspan_collector.log.files import Files
from introspan_collector.log.segment import Extent, segment_name

_log = structlog.get_logger(__name__)

_ROTATIONS_PER_AGE = 8


class Retention:
    """Keeps the log within max_bytes and max_age_seconds by deleting whole segments, never the newest one."""

    def __init__(
        self, *, max_bytes: int, max_age_seconds: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._max_bytes = max_bytes
        self._max_age_seconds = max_age_seconds
        self._clock = clock
        self._segments: list[Extent] = []

    @property
    def log_bytes(self) -> int:
        """Bytes of all segments."""
        return sum(segment.end - segment.start for segment in tuple(self._segments))

    @property
    def log_segments(self) -> int:
        """Number of segments."""
        return len(self._segments)

    @property
    def now_unix_nano(self) -> int:
        """The time that ages are taken from."""
        return int(self._clock() * 1e9)

    def adopt(self, segments: list[Extent]) -> None:
        """Takes over the segments found when the log is opened."""
        self._segments = list(segments)

    def started(self, start: int) -> None:
        """A new segment begins."""
        self._segments.append(Extent(start, start, 0, 0))

    def appended(self, end: int, received_unix_nano: int) -> None:
        """The newest segment has grown."""
        newest = self._segments[-1]
        first_unix_nano = newest.first_unix_nano if newest.end > newest.start else received_unix_nano
        self._segments[-1] = replace(
            newest, end=end, first_unix_nano=first_unix_nano, last_unix_nano=received_unix_nano
        )

    def wants_rotation(self) -> bool:
        """True if the newest segment has been written to so long that it would keep old records for long."""
        newest = self._segments[-1]
        oldest_allowed = self._max_age_seconds / _ROTATIONS_PER_AGE
        return newest.end > newest.start and self._age_seconds(newest.first_unix_nano) > oldest_allowed

    def expire(self, files: Files) -> None:
        """Deletes the oldest segments while the limits are exceeded. Raises OSError if the system refuses."""
        while len(self._segments) > 1 and self._expired(self._segments[0]):
            oldest = self._segments[0]
            files.remove(segment_name(oldest.start))
            del self._segments[0]
            _log.info("log segment deleted", start=oldest.start, bytes=oldest.end - oldest.start)

    def _expired(self, segment: Extent) -> bool:
        too_old = self._age_seconds(segment.last_unix_nano) > self._max_age_seconds
        return too_old or self.log_bytes > self._max_bytes

    def _age_seconds(self, unix_nano: int) -> float:
        return self._clock() - unix_nano / 1e9

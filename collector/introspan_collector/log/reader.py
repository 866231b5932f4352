"""A cursor in, the records after it in order out."""

import structlog

from introspan_collector.log.files import Files
from introspan_collector.log.recent import Recent
from introspan_collector.log.segment import Found, find_record, segment_starts

_log = structlog.get_logger(__name__)


class Reader:
    """Reads the log from a cursor. Belongs to one thread.

    What cannot be read is skipped and counted: damaged bytes in corrupt_bytes, segments that were deleted
    before they were read in expired_bytes. recent: records that need not be read from the files.
    """

    def __init__(self, files: Files, offset: int, recent: Recent | None = None) -> None:
        self._files = files
        self._recent = recent
        self.offset = offset
        self.corrupt_bytes = 0
        self.expired_bytes = 0
        self._start: int | None = None
        self._stop = 0
        self._end = 0

    def next_record(self, end: int) -> Found | None:
        """The next sound record before the offset end, which is where the log ended a moment ago."""
        self._end = end
        while self.offset < end:
            if self._recent is not None and (held := self._recent.take(self.offset)) is not None:
                self.offset = held.next_offset
                return held
            try:
                found = self._step()
            except FileNotFoundError:
                self._start = None  # retention deleted the segment between two reads
                continue
            if found is not None and found.payload is not None:
                return found
        return None

    def _step(self) -> Found | None:
        if self._start is None or self.offset >= self._stop:
            self._start = self._enter_segment()
            if self.offset >= self._stop:
                return None
        found = find_record(self._files, self._start, self.offset, self._stop)
        sound = found is not None and found.payload is not None
        damage_end = self._stop if found is None else found.offset if sound else found.next_offset
        if damage_end > self.offset:
            _log.warning("damaged log skipped", offset=self.offset, bytes=damage_end - self.offset)
            self.corrupt_bytes += damage_end - self.offset
        self.offset = self._stop if found is None else found.next_offset
        return found

    def _enter_segment(self) -> int:
        starts = segment_starts(self._files)
        if starts and self.offset < starts[0]:
            _log.warning("log deleted before it was read", offset=self.offset, bytes=starts[0] - self.offset)
            self.expired_bytes += starts[0] - self.offset
            self.offset = starts[0]
        # Never beyond the end known now: later the newest segment may have a successor, and stop there.
        self._stop = min([start for start in starts if start > self.offset] + [self._end])
        return max([start for start in starts if start <= self.offset], default=self.offset)

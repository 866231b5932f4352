"""Groups of records in, the same records at the end of the log, durable, out."""

import time
from collections.abc import Callable, Sequence

import structlog

from introspan_collector.log.files import Files
from introspan_collector.log.recent import Recent
from introspan_collector.log.record import Record, frame, header_of
from introspan_collector.log.recovery import recover
from introspan_collector.log.retention import Retention
from introspan_collector.log.segment import Found, segment_name
from introspan_collector.log.sequences import Sequences

_log = structlog.get_logger(__name__)


class Appender:
    """The writing end of the log. Belongs to one thread, but for `end`, which any thread may read.

    With sync_each=False a group is durable only after the next sync() or the end of its segment.
    """

    def __init__(
        self,
        files: Files,
        sequences: Sequences,
        retention: Retention,
        *,
        segment_bytes: int,
        sync_each: bool = True,
        not_before: int = 0,
        recent: Recent | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = files
        self._sequences = sequences
        self._retention = retention
        self._segment_bytes = segment_bytes
        self._sync_each = sync_each
        self._recent = recent
        self._monotonic = monotonic
        recovered = recover(files, sequences, not_before=not_before, now_unix_nano=retention.now_unix_nano)
        retention.adopt(recovered.segments)
        self._start = recovered.segments[-1].start
        self.torn_bytes = recovered.torn_bytes
        self.end = recovered.segments[-1].end
        """Offset after the last record that readers may see."""
        self._leftover = False
        self._unsynced = False
        self.syncs = 0
        self.sync_seconds = 0.0
        if self.torn_bytes:
            _log.warning("half-written records cut off the log", bytes=self.torn_bytes, end=self.end)

    def append(self, records: Sequence[Record]) -> None:
        """Writes a group. Raises OSError if the system refuses; then none of the group is in the log."""
        self._make_room()
        offset = self.end
        found, written = [], []
        for record in records:
            found.append(Found(offset, header_of(record), b"", record.decoded))
            written += [frame(found[-1].header, offset), record.payload]
            offset = found[-1].next_offset
        name = segment_name(self._start)
        try:
            self._files.write(name, self.end - self._start, b"".join(written))
            self._unsynced = True
            if self._sync_each:
                self.sync()
        except Exception:
            self._undo()
            raise
        if self._recent is not None:
            # Before the end moves: a reader that sees the new end finds them.
            for one in found:
                self._recent.put(one)
        self.end = offset
        for record in records:
            self._sequences.advance(record.producer, record.sequence)
        self._retention.appended(self.end, records[-1].received_unix_nano)

    def sync(self) -> None:
        """Makes what was appended durable. Raises OSError if the system refuses."""
        if self._unsynced:
            began = self._monotonic()
            self._files.sync(segment_name(self._start))
            self._unsynced = False
            self.syncs += 1
            self.sync_seconds += self._monotonic() - began

    def expire(self) -> None:
        """Deletes the segments that are past the limits on age and bytes."""
        if self._retention.wants_rotation():
            self._rotate()
        self._retention.expire(self._files)

    def close(self) -> None:
        """Syncs and releases the files."""
        self.sync()
        self._files.close()

    def _make_room(self) -> None:
        used = self.end - self._start
        if used >= self._segment_bytes or (self._leftover and used):
            self._rotate()
        elif self._leftover:
            # Durably, before anything takes its place: where only a part of that reached the disk, the rest of what was
            # left over would follow it.
            self._files.truncate(segment_name(self._start), 0)
            self._files.sync(segment_name(self._start))
            self._leftover = False

    def _rotate(self) -> None:
        if not self._leftover:
            self.sync()
        # The file may be there although making it failed: what came behind its start in the old one would be lost.
        self._leftover = True
        self._files.create(segment_name(self.end))
        self._start = self.end
        self._leftover = False
        self._unsynced = False
        self._retention.started(self._start)

    def _undo(self) -> None:
        # Readers stop at `end`, but a restart would find whole records behind it: cut them off. If even that
        # is refused, the next segment begins at `end`, and a segment ends where the next one begins.
        try:
            self._files.truncate(segment_name(self._start), self.end - self._start)
            self._files.sync(segment_name(self._start))
        except Exception as error:  # noqa: BLE001 whatever it was, the bytes are still there
            self._leftover = True
            _log.warning("the log's segment could not be cut back, a new one follows", error=str(error))

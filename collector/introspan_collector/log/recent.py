"""Records that were just appended in, the same to a reader that is close behind, without the disk, out."""

from collections import deque

from introspan_collector.log.segment import Found


class Recent:
    """What was made of the newest records before they were appended, at most max_bytes of their payloads.

    One thread puts, another takes, both in the order of the log. It is never the only place where a record is: one
    that finds no room, or that is gone after a restart, is read from the log.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._records: deque[Found] = deque()
        # One count for each thread, so that neither waits for the other.
        self._put_bytes = 0
        self._taken_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Payload bytes of what is held."""
        return self._put_bytes - self._taken_bytes

    def put(self, record: Found) -> None:
        """Keeps a record if there is room. The oldest stay: the reader comes to them first."""
        if record.decoded is not None and self.held_bytes + record.header.payload_bytes <= self._max_bytes:
            self._put_bytes += record.header.payload_bytes
            self._records.append(record)

    def take(self, offset: int) -> Found | None:
        """The record at exactly this offset, once; what lies before it is let go."""
        while self._records and self._records[0].offset <= offset:
            record = self._records.popleft()
            self._taken_bytes += record.header.payload_bytes
            if record.offset == offset:
                return record
        return None

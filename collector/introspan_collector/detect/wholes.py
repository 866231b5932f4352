"""Batches of workers that each measure a part of the same requests in; tables with all of a request in a row out.

Detectors compare a request as a whole: where its prompt lies says which others it is like, and what is compared of it
are features of all layers, heads averaged over all. Whole tables pass as they are; of engines that are spread over
several workers a segment waits until every worker that sends such segments has sent it, and not longer than a while.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from introspan_collector.detect import checkpoint
from introspan_collector.detect.pieces import Arrays, dump_pieces, load_pieces
from introspan_collector.joined import Piece, assembled, key_of
from introspan_collector.model import Batch, Origin
from introspan_wire.codec import SegmentTable

WAIT_SECONDS = 15.0
"""Workers compute rows within four seconds of one another and send them in one more; a busy machine takes longer."""

_MOST_BYTES = 64 << 20
_MOST_SUBJECTS = 1024
_MOST_PARTS = 4096
_ROW_BYTES = 512
"""What objects of a row take beside its values."""

_WHAT = "segments that wait for their other parts"
_VERSION = 1

_Part = tuple[int, int]
_Subject = tuple[str, str, str]
"""Model, replica and kind of segment."""


class Whole(NamedTuple):
    """A table as detectors take it; origin is that of the first of its workers."""

    origin: Origin
    table: SegmentTable
    received_unix_nano: int


@dataclass(slots=True)
class _Waiting:
    subject: _Subject
    key: object
    since_unix_nano: int
    received_unix_nano: int = 0
    pieces: dict[_Part, tuple[Origin, Piece]] = field(default_factory=dict)
    bytes: int = 0


@dataclass(slots=True)
class _Senders:
    """Which workers send such segments: all, until one has sent none while a segment waited for its part.

    heard: when each last did; silent: how many did not.
    """

    heard: dict[_Part, int] = field(default_factory=dict)
    silent: int = 0


class Wholes:
    """Puts segments together by request; bounded, the oldest are given as they are."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._waiting: OrderedDict[int, _Waiting] = OrderedDict()
        self._numbers: dict[object, list[int]] = {}  # of those of one key, the oldest first
        self._next = 0
        self._senders: OrderedDict[_Subject, _Senders] = OrderedDict()
        self.incomplete = 0
        """Segments that were given although some worker's part of them had not come."""

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, batch: Batch, now_unix_nano: int) -> Iterator[Whole]:
        """Takes a batch, in log order, which may have been received long ago; gives what is whole with it."""
        origin = batch.origin
        if origin.workers <= 1:
            yield from (Whole(origin, table, batch.received_unix_nano) for table in batch.tables)
            return
        done: list[_Waiting] = []
        for table in batch.tables:
            subject = (origin.model, origin.replica, table.schema.kind.value)
            needed = self._needed(subject, origin, now_unix_nano)
            for row in range(len(table)):
                number, found = self._put(subject, origin, (table, row), now_unix_nano)
                found.received_unix_nano = max(found.received_unix_nano, batch.received_unix_nano)
                if len(found.pieces) >= needed:
                    done.append(self._pop(number))
        while self._bytes > self._most_bytes:
            done.append(self._pop(next(iter(self._waiting))))
            self.incomplete += 1
        yield from _given(done)

    def late(self, now_unix_nano: int) -> Iterator[Whole]:
        """What has waited long enough, as far as it has come."""
        before = now_unix_nano - round(WAIT_SECONDS * 1e9)
        late = [number for number, found in self._waiting.items() if found.since_unix_nano <= before]
        yield from _given([self._give_up(number) for number in late])

    def snapshot(self) -> bytes:
        """What waits, and which workers were heard."""
        arrays = Arrays()
        waiting = [
            [number, found.subject, found.since_unix_nano, found.received_unix_nano]
            for number, found in self._waiting.items()
        ]
        parts = {number: list(found.pieces.values()) for number, found in self._waiting.items()}
        senders = [[subject, list(one.heard.items()), one.silent] for subject, one in self._senders.items()]
        header = {
            "waiting": waiting,
            "pieces": dump_pieces(parts, arrays),
            "senders": senders,
            "next": self._next,
            "incomplete": self.incomplete,
        }
        return checkpoint.dump(_WHAT, _VERSION, header, arrays)

    def restore(self, data: bytes) -> None:
        """Puts a snapshot's state in place of this one. Raises ValueError for one that it cannot read."""
        header, arrays = checkpoint.load(_WHAT, _VERSION, data)
        self._waiting, self._numbers, self._bytes = OrderedDict(), {}, 0
        for number, subject, since, received in header["waiting"]:
            self._waiting[number] = _Waiting(tuple(subject), None, since, received)
        for number, origin, piece in load_pieces(header["pieces"], arrays):
            found = self._waiting[number]
            found.key = (found.subject, key_of(*piece))
            self._add(found, origin, piece)
        for number, found in self._waiting.items():
            self._numbers.setdefault(found.key, []).append(number)
        self._senders = OrderedDict(
            (tuple(subject), _Senders({tuple(part): at for part, at in heard}, silent))
            for subject, heard, silent in header["senders"]
        )
        self._next, self.incomplete = header["next"], header["incomplete"]

    def _needed(self, subject: _Subject, origin: Origin, now_unix_nano: int) -> int:
        """How many workers' parts make a segment whole."""
        senders = self._senders.setdefault(subject, _Senders())
        self._senders.move_to_end(subject)
        if len(self._senders) > _MOST_SUBJECTS:
            self._senders.popitem(last=False)
        is_back = origin.part not in senders.heard and senders.silent
        if len(senders.heard) < _MOST_PARTS:
            senders.heard[origin.part] = now_unix_nano
        senders.silent -= bool(is_back)
        return max(origin.workers - senders.silent, 1)

    def _put(
        self, subject: _Subject, origin: Origin, piece: Piece, now_unix_nano: int
    ) -> tuple[int, _Waiting]:
        table, row = piece
        key = (subject, key_of(table, row))
        numbers = self._numbers.setdefault(key, [])
        # Of an id that a client uses again, the worker's next row belongs to the next request.
        number = next((one for one in numbers if origin.part not in self._waiting[one].pieces), None)
        if number is None:
            number, self._next = self._next, self._next + 1
            numbers.append(number)
            self._waiting[number] = _Waiting(subject, key, now_unix_nano)
        self._add(self._waiting[number], origin, piece)
        return number, self._waiting[number]

    def _add(self, found: _Waiting, origin: Origin, piece: Piece) -> None:
        table, row = piece
        size = table.values[row].nbytes + _ROW_BYTES
        found.pieces[origin.part] = (origin, piece)
        found.bytes += size
        self._bytes += size

    def _pop(self, number: int) -> _Waiting:
        found = self._waiting.pop(number)
        self._bytes -= found.bytes
        numbers = self._numbers[found.key]
        numbers.remove(number)
        if not numbers:
            del self._numbers[found.key]
        return found

    def _give_up(self, number: int) -> _Waiting:
        """Waits no longer for the rest of a segment, nor for whoever was silent meanwhile, until they send again."""
        found = self._pop(number)
        self.incomplete += 1
        senders = self._senders.get(found.subject)
        if senders is not None:
            since = found.since_unix_nano
            senders.heard = {part: at for part, at in senders.heard.items() if at >= since}
            workers = next(iter(found.pieces.values()))[0].workers
            senders.silent = max(workers - len(senders.heard), 0)
        return found


def _given(done: list[_Waiting]) -> Iterator[Whole]:
    """Whole rows by the origin of their first part, in the order in which they became so."""
    by_origin: dict[Origin, list[_Waiting]] = {}
    for found in done:
        first, _ = found.pieces[min(found.pieces)]
        by_origin.setdefault(first, []).append(found)
    for origin, members in by_origin.items():
        received = max(found.received_unix_nano for found in members)
        segments = [[found.pieces[part][1] for part in sorted(found.pieces)] for found in members]
        yield from (Whole(origin, table, received) for table in assembled(segments))

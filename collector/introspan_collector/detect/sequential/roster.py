"""Blocks of evidence in, one numbering of all streams out: the tick and every copy of the test follow the same rows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect import checkpoint
from introspan_collector.detect.sequential.evidence import Evidence, Growth, Stream
from introspan_collector.detect.sequential.tick import FEWEST_CLUSTERS

_WHAT = "the roster"
_VERSION = 1
_AT_ONCE = frozenset({"canary"})
"""Detectors whose every piece of evidence is a tick of its own."""

MOST_STREAMS = 1 << 17
"""As many as a tick can close in half a second; a replica of a model with 60 signals has 500."""

_MOST_RECENT = 4096


class _Recent(NamedTuple):
    """A block as it was given last; holding its streams keeps their id from being used again."""

    streams: tuple[Stream, ...]
    bound: NDArray[np.float64]
    tickets_only: bool
    rows: NDArray[np.intp]


class Roster:
    """Every stream that evidence was given for, in blocks that come and go together; version counts the changes."""

    def __init__(self, most_streams: int = MOST_STREAMS) -> None:
        self.version = 0
        self.refused_values = 0
        """Values of evidence on streams beyond most_streams."""
        self._most_streams = most_streams
        self._blocks: dict[tuple[Stream, ...], tuple[NDArray[np.float64], bool]] = {}
        self._first: dict[tuple[Stream, ...], int] = {}
        # The hash of hundreds of names takes longer than the evidence: the same tuple, given again, is known by its id.
        self._recent: dict[int, _Recent] = {}
        self._used: set[tuple[Stream, ...]] = set()
        self._idle: set[tuple[Stream, ...]] = set()

    def rows(self, evidence: Evidence | Growth, *, tickets_only: bool = False) -> NDArray[np.intp] | None:
        """Rows of a block's streams; one that is new, or whose bounds have changed, is taken up; None without room.

        tickets_only: it must not page, as nothing that a provisional reference says may.
        """
        streams, bound = evidence.streams, evidence.bound
        recent = self._recent.get(id(streams))
        if recent is not None and recent.tickets_only == tickets_only and np.array_equal(recent.bound, bound):
            return recent.rows
        known = self._blocks.get(streams)
        if known is None and sum(map(len, self._blocks)) + len(streams) > self._most_streams:
            refused = evidence.x if isinstance(evidence, Evidence) else evidence.bound
            self.refused_values += int(np.count_nonzero(~np.isnan(refused)))
            return None
        self._used.add(streams)
        if known is None or known[1] != tickets_only or not np.array_equal(known[0], bound):
            self._blocks[streams] = (bound, tickets_only)
            self._renumber()
        first = self._first[streams]
        rows = np.arange(first, first + len(streams))
        if len(self._recent) >= _MOST_RECENT:
            self._recent.clear()
        self._recent[id(streams)] = _Recent(streams, bound, tickets_only, rows)
        return rows

    def drop(self, model: str, adapter: str, detectors: Sequence[str]) -> None:
        """Forgets the streams of these detectors: their reference is another one now."""
        gone = [
            block
            for block in self._blocks
            if (block[0].model, block[0].adapter) == (model, adapter) and block[0].detector in detectors
        ]
        for block in gone:
            del self._blocks[block]
        if gone:
            self._renumber()

    def sweep(self) -> None:
        """Forgets blocks without evidence since the sweep before the last one: of replicas that are gone."""
        used, self._used = self._used, set()
        self._recent.clear()  # so that whatever is given again is noticed again
        unused = self._blocks.keys() - used
        gone = unused & self._idle
        self._idle = unused - gone
        for block in gone:
            del self._blocks[block]
        if gone:
            self._renumber()

    def about(self, rows: NDArray[np.bool_]) -> set[tuple[str, str]]:
        """Model and adapter of every block that has one of these rows, bool [S]."""
        if not rows.any():
            return set()
        some = np.logical_or.reduceat(rows, list(self._first.values()))
        pairs = zip(self._first, some.tolist(), strict=True)
        return {(block[0].model, block[0].adapter) for block, has_some in pairs if has_some}

    @property
    def streams(self) -> tuple[Stream, ...]:
        """All streams, in the order of their rows."""
        return tuple(stream for block in self._blocks for stream in block)

    @property
    def bound(self) -> NDArray[np.float64]:
        """The bound m of every stream, float64 [S]."""
        return np.concatenate([np.zeros(0), *(bound for bound, _ in self._blocks.values())])

    @property
    def page_bound(self) -> NDArray[np.float64]:
        """The same for the copy that pages: 1, which nothing can exceed, where tickets are all that is allowed."""
        bounds = [np.ones_like(bound) if tickets else bound for bound, tickets in self._blocks.values()]
        return np.concatenate([np.zeros(0), *bounds])

    @property
    def fewest_clusters(self) -> NDArray[np.int64]:
        """Clusters that a stream waits for, int64 [S]."""
        fewest = [1 if stream.detector in _AT_ONCE else FEWEST_CLUSTERS for stream in self.streams]
        return np.array(fewest, np.int64)

    def snapshot(self) -> bytes:
        """The whole state."""
        blocks = [[block, tickets_only] for block, (_, tickets_only) in self._blocks.items()]
        return checkpoint.dump(_WHAT, _VERSION, {"blocks": blocks}, {"bound": self.bound})

    def restore(self, data: bytes) -> None:
        """Puts a snapshot's state in place of this one. Raises ValueError for one that it cannot read."""
        header, arrays = checkpoint.load(_WHAT, _VERSION, data)
        self._blocks, first = {}, 0
        for block, tickets_only in header["blocks"]:
            streams = tuple(Stream(*fields) for fields in block)
            self._blocks[streams] = (arrays["bound"][first : first + len(streams)], tickets_only)
            first += len(streams)
        self._renumber()

    def _renumber(self) -> None:
        self.version += 1
        self._recent.clear()
        row = 0
        for block in self._blocks:
            self._first[block] = row
            row += len(block)
        self._first = {block: self._first[block] for block in self._blocks}

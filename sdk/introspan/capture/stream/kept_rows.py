"""Rows of requests in the middle of a burst in; the same on a device, until the rows that follow on them come, out."""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from introspan.capture.rows import BURST, Selection
from introspan.capture.stream.succession import Succession

PLACES = 64
"""Requests of which rows are kept at once. Of 48 rows that are computed together, two of three go on at most."""

MOST_BYTES = 16 << 20
"""Of a device's memory, for those rows; where each takes much there are fewer places."""


class Kept(NamedTuple):
    """Which rows of a batch are kept, and in which cells; lost: slots of which nothing is kept from now on."""

    rows: list[int]
    cells: list[int]
    lost: list[int]


@dataclass(slots=True, eq=False)
class _Place:
    """Two cells of a request, by turns: the newer one holds its last row, the other the row before."""

    newer: int
    older: int
    batch: int
    is_over: bool


class KeptRows:
    """The last two rows of requests that go on, [2 · places, layers, hidden size].

    As they are in the taps' buffers, in the model's dtype: their directions are then computed from the same numbers as
    those of a batch's own rows, and take half the memory that float32 would where the model has 16 bits. 2 · places ·
    layers · hidden size · bytes of a number: of 8 layers of 4,096 numbers in bfloat16, 8 MiB; never over MOST_BYTES,
    but for a single place.
    """

    def __init__(
        self, layers: int, width: int, dtype: torch.dtype, device: torch.device, places: int = PLACES
    ) -> None:
        place_bytes = 2 * layers * width * dtype.itemsize
        places = min(places, max(MOST_BYTES // max(place_bytes, 1), 1))
        self.rows = torch.zeros(2 * places, layers, width, dtype=dtype, device=device)
        self._free = list(range(places))
        self._places: dict[int, _Place] = {}
        self._batch = 0

    def cells(self, slot: int) -> tuple[int, int]:
        """Where a slot's last row is, and the one before it."""
        place = self._places[slot]
        return place.newer, place.older

    def forget(self, slot: int) -> None:
        """Frees what a slot has."""
        place = self._places.pop(slot, None)
        if place is not None:
            self._free.append(place.newer // 2)

    def keep(self, selection: Selection, found: Succession) -> Kept:
        """Gives each request of a batch the cells for its last rows, as far as there are any.

        A request that certainly goes on goes before one that may. Of others, who is in the middle of a burst loses its
        cells to nobody: the request that finds none is the one whose next step is not measured.
        """
        self._batch += 1
        kept = Kept([], [], [])
        is_over = {
            slot: bool(selection.attention[row]) and selection.burst[row] < BURST
            for slot, row in found.newest.items()
        }
        for slot in sorted(found.newest, key=is_over.__getitem__):
            place = self._place(slot, found, kept.lost, is_over=is_over[slot])
            if place is None:
                kept.lost.append(slot)
            else:
                self._write(place, found.newest[slot], found, len(selection), kept)
        return kept

    def _place(self, slot: int, found: Succession, lost: list[int], *, is_over: bool) -> _Place | None:
        place = self._places.pop(slot, None)
        if place is None:
            if not self._free and not is_over:
                self._make_room(found, lost)
            if not self._free:
                return None
            first = 2 * self._free.pop()
            place = _Place(first, first + 1, 0, is_over=False)
        place.batch, place.is_over = self._batch, is_over
        self._places[slot] = place  # behind all others: the first is the one that waits longest
        return place

    def _make_room(self, found: Succession, lost: list[int]) -> None:
        """Takes the cells of whoever has waited longest without going on, or seems to be through with its burst."""
        for slot, place in self._places.items():
            is_idle = place.batch < self._batch - 1
            if slot not in found.newest and (is_idle or place.is_over):
                lost.append(slot)
                self.forget(slot)
                return

    def _write(self, place: _Place, row: int, found: Succession, n: int, kept: Kept) -> None:
        """The row goes where the older one was; and the one before it, where that is of this batch too, beside it."""
        place.newer, place.older = place.older, place.newer
        kept.rows.append(row)
        kept.cells.append(place.newer)
        if found.run[row] and found.last[row] < n:
            kept.rows.append(found.last[row])
            kept.cells.append(place.older)

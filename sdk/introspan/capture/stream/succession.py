"""Measured rows of a few steps in; which of them follow on which row, of this batch or an earlier one, out."""

from typing import NamedTuple

from introspan.capture.rows import Selection


class Succession(NamedTuple):
    """Of each row of a batch, where the rows one and two tokens before it are.

    last, before_last: a row of the batch, or behind the batch's n rows n + 2·k and n + 2·k + 1: the last and the one
    before it of the request in slot going_on[k]; they hold where run is at least 1 and 2. run: rows in turn before
    each. newest: the last row of each slot whose rows are decoded ones.
    """

    last: list[int]
    before_last: list[int]
    run: list[int]
    going_on: list[int]
    newest: dict[int, int]
    positions: list[int]


class Successions:
    """Remembers where each of `capacity` slots is, from batch to batch; what its rows hold is kept by others."""

    def __init__(self, capacity: int) -> None:
        self._last_position = [-2] * capacity
        self._run = [0] * capacity

    def forget(self, slot: int) -> None:
        """No row follows on what the slot had."""
        self._last_position[slot] = -2

    def clear(self) -> None:
        """The same of all slots."""
        self._last_position = [-2] * len(self._last_position)

    def find(self, selection: Selection) -> Succession:
        """The order of rows that were computed one after another; a request may have several."""
        n = len(selection)
        slots, positions, bursts = (
            selection.slot.tolist(),
            selection.position.tolist(),
            selection.burst.tolist(),
        )
        going_on: list[int] = []
        last, before_last, run = [0] * n, [0] * n, [0] * n
        newest: dict[int, int] = {}
        for row, (slot, position, burst) in enumerate(zip(slots, positions, bursts, strict=True)):
            if burst < 0:
                continue
            earlier = newest.get(slot)
            before = self._last_position[slot] if earlier is None else positions[earlier]
            if burst > 0 and position == before + 1:
                if earlier is None:
                    run[row] = self._run[slot] + 1
                    last[row], before_last[row] = n + 2 * len(going_on), n + 2 * len(going_on) + 1
                    going_on.append(slot)
                else:
                    run[row], last[row], before_last[row] = run[earlier] + 1, earlier, last[earlier]
            newest[slot] = row
        return Succession(last, before_last, run, going_on, newest, positions)

    def keep(self, found: Succession) -> None:
        """The rows of a batch are kept: later ones may follow on them."""
        for slot, row in found.newest.items():
            self._run[slot], self._last_position[slot] = found.run[row], found.positions[row]

"""Steps as they run and their tokens as they come in; up to which position each request's tokens were delivered out.

With asynchronous scheduling a step begins before the tokens of the one before it are known. So a request that stops has
rows behind its last token, and one that is aborted may have. Three facts tell which. When the engine hands a step over,
it has taken the tokens of all but the last few. A token that ends a request is known here too, by the same rules. And
what ended without one was aborted: of the few steps at whose tokens the engine may not have looked by then none counts.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from introspan.capture.rows import Selection
from introspan.capture.step.ending import Ending
from introspan.observation import Request

TAIL_TOKENS = 4096
"""Tokens of each request that are kept: repetition is followed back no further."""

NO_TOKEN = -1

_MOST_STEPS = 64


class Arrival(Protocol):
    """The tokens of one step on their way from the device."""

    def is_here(self) -> bool:
        """Whether they can be read without waiting."""

    def wait(self) -> None:
        """Waits until they can be read."""

    def tokens(self) -> NDArray[np.int64]:
        """The first token of each request of the batch, NO_TOKEN where none was drawn."""


@dataclass(slots=True, eq=False)
class _Step:
    """A step whose tokens may not be delivered. slots, position: [requests followed]; selection: its measured rows."""

    number: int
    slots: NDArray[np.int64]
    position: NDArray[np.int64]
    selection: Selection | None
    arrival: Arrival | None

    def at(self, slot: int) -> int | None:
        """The position of a request's row in the step."""
        found = np.flatnonzero(self.slots == slot)
        return int(self.position[found[0]]) if found.size else None

    def leave_out(self, slot: int, beyond: int) -> None:
        """Knows nothing any more of a request's row, if it is beyond a position."""
        kept = (self.slots != slot) | (self.position <= beyond)
        if self.arrival is None:
            self.slots, self.position = self.slots[kept], self.position[kept]
        else:  # its places are those of the tokens to come
            self.slots = np.where(kept, self.slots, -1)


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that has ended, and the last position whose token was delivered."""

    slot: int
    request: Request
    last_position: int


class Deliveries:
    """Follows the requests of a table, by its slots. depth: steps that the engine has under way at most.

    delivered: [slots] the last position whose token was delivered for certain, below the prompt's last where none.
    has_ended: [slots] whether nothing more is delivered.
    """

    def __init__(self, capacity: int, depth: int) -> None:
        # One more than are under way: what a client has left is aborted before the engine looks at the next tokens.
        self._open = depth + 1
        self._number = 0
        self._steps: deque[_Step] = deque()
        self._ends: deque[tuple[int, int, Request]] = deque()
        self._endings: list[Ending | None] = [None] * capacity
        self._first = np.zeros(capacity, np.int64)
        self._tokens = np.zeros((capacity, TAIL_TOKENS), np.int32)
        self._sees_tokens = False  # in no pipeline stage but the last
        self.delivered = np.full(capacity, -1, np.int64)
        self.has_ended = np.zeros(capacity, np.bool_)

    def begin(self, slot: int, request: Request, ending: Ending) -> None:
        """Follows a request that begins with the coming step."""
        self._endings[slot] = ending
        self._first[slot] = request.prompt_tokens - 1
        self.delivered[slot] = -1
        self.has_ended[slot] = False

    def finish(self, slot: int, request: Request) -> None:
        """A request is not in the coming step, nor in any later one."""
        self._ends.append((self._number, slot, request))

    def rewind(self, slot: int, position: int) -> None:
        """The engine goes on from a position as if what it computed beyond had not been."""
        for step in self._steps:
            step.leave_out(slot, position)

    def schedule(self) -> None:
        """The engine has handed a step over: it has taken the tokens of all but the last few before it."""
        self._number += 1

    def add(
        self,
        slots: NDArray[np.int64],
        position: NDArray[np.int64],
        selection: Selection | None,
        arrival: Arrival | None,
    ) -> None:
        """A step has run; slots: [requests] −1 where not followed; arrival: None where its tokens are not seen here."""
        step = _Step(self._number, slots, position, selection, arrival)
        if arrival is None:
            _keep(step, slots >= 0)
        if len(self._steps) >= _MOST_STEPS:
            raise RuntimeError(f"the tokens of {len(self._steps)} steps have not come")
        self._steps.append(step)

    def collect(self, *, wait: bool) -> list[Selection]:
        """Takes in the tokens that have come, in order; gives the measured rows of their steps."""
        come = []
        for step in self._steps:
            arrival = step.arrival
            if arrival is None:
                continue
            if wait:
                arrival.wait()
            elif not arrival.is_here():
                break
            step.arrival = None  # first: what raises below is not tried again
            self._take(step, arrival.tokens())
            if step.selection is not None:
                come.append(step.selection)
        return come

    def end(self, is_under_way: Callable[[int], bool]) -> list[Ended]:
        """Requests of which it is known now how far they were delivered.

        is_under_way: whether rows of a slot are still to come, which its next request must not be taken for.
        """
        ended = []
        while self._ends and self._knows_until(self._ends[0][0]) and not is_under_way(self._ends[0][1]):
            number, slot, request = self._ends.popleft()
            last = self._last(slot, number)
            self.delivered[slot], self.has_ended[slot] = last, True
            for step in self._steps:
                step.leave_out(slot, -1)
            ended.append(Ended(slot, request, last))
        return ended

    def confirm(self) -> None:
        """Takes as delivered what the engine has certainly looked at."""
        number = self._ends[0][0] if self._ends else self._number
        while self._steps and self._steps[0].number <= number - self._open:
            if self._steps[0].arrival is not None:
                return
            step = self._steps.popleft()
            self.delivered[step.slots] = np.maximum(self.delivered[step.slots], step.position)

    def tail(self, slot: int, position: int) -> NDArray[np.int32]:
        """The tokens that a request has generated, up to that of the row at a position; the last TAIL_TOKENS."""
        first = max(int(self._first[slot]), position - TAIL_TOKENS + 1)
        tail: NDArray[np.int32] = self._tokens[slot, np.arange(first, position + 1) % TAIL_TOKENS]
        return tail

    def _take(self, step: _Step, tokens: NDArray[np.int64]) -> None:
        self._sees_tokens = True
        drawn = (step.slots >= 0) & (tokens != NO_TOKEN)
        _keep(step, drawn)
        self._tokens[step.slots, step.position % TAIL_TOKENS] = tokens[drawn]

    def _knows_until(self, number: int) -> bool:
        """Whether the tokens of all steps before one have come."""
        return all(step.arrival is None for step in self._steps if step.number < number)

    def _last(self, slot: int, number: int) -> int:
        """The last position of a request that was delivered, if it ended before a step."""
        last, open_positions = int(self.delivered[slot]), []
        for step in self._steps:
            position = step.at(slot) if step.number < number else None
            if position is None:
                continue
            if step.number <= number - self._open:
                last = max(last, position)
            else:
                open_positions.append(position)
        if self._is_end(slot, last):
            return last
        return next((position for position in open_positions if self._is_end(slot, position)), last)

    def _is_end(self, slot: int, position: int) -> bool:
        ending = self._endings[slot]
        if ending is None or position < self._first[slot]:
            return False
        if position >= ending.position:
            return True
        return self._sees_tokens and int(self._tokens[slot, position % TAIL_TOKENS]) in ending.tokens


def _keep(step: _Step, kept: NDArray[np.bool_]) -> None:
    step.slots, step.position = step.slots[kept], step.position[kept]

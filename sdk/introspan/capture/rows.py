"""What a step schedules in; which of its rows are measured out.

A row is measured when it is the last one its request has in the step, at or after the last prompt token, and
beyond all that was measured before: positions computed again after a preemption count once.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from introspan.observation import Request

BURST = 3
"""Consecutive decoded tokens measured together; differences over tokens are taken inside a burst."""


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The measured rows of one step; every array has one entry per row.

    token is the row's index in the step's flat token axis, batch its request's index in the batch. burst is the
    row's place in its burst (0, 1, 2, or more where every token is measured), −1 for a prompt row.
    """

    requests: list[Request]
    slot: NDArray[np.int64]
    token: NDArray[np.int64]
    batch: NDArray[np.int64]
    position: NDArray[np.int64]
    burst: NDArray[np.int64]
    attention: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.requests)

    def pick(self, rows: NDArray[np.int64]) -> "Selection":
        """Some of the rows, in order."""
        return Selection(
            [self.requests[row] for row in rows.tolist()], *(each[rows] for each in self._arrays())
        )

    def _arrays(self) -> list[NDArray[Any]]:
        return [self.slot, self.token, self.batch, self.position, self.burst, self.attention]


def phase_of(request_hash: int, stride: int) -> int:
    """Where a request's bursts lie: decoded token i is in one where (i + phase) mod stride < BURST."""
    return (request_hash >> 32) % stride


def last_of_bursts(request_hash: int, stride: int, decoded: int) -> int | None:
    """The last of so many decoded tokens at which a burst ends; None where none does."""
    if decoded < 1:
        return None
    last = decoded - 1
    last -= (last + phase_of(request_hash, stride) - min(BURST, stride) + 1) % stride
    return last if last >= 0 else None


def join(selections: list[Selection]) -> Selection:
    """The rows of several steps, in order; token and batch are those of each row's own step."""
    if len(selections) == 1:
        return selections[0]
    return Selection(
        [request for selection in selections for request in selection.requests],
        *(
            np.concatenate([getattr(selection, name) for selection in selections])
            for name in ("slot", "token", "batch", "position", "burst", "attention")
        ),
    )


def fitting(selection: Selection, count: int) -> Selection:
    """So many rows of a step, in order, and always those of the same requests: canaries before all, then by hash."""
    ranks = [(request.is_traffic, request.hash) for request in selection.requests]
    first = sorted(range(len(ranks)), key=ranks.__getitem__)[:count]
    return selection.pick(np.array(sorted(first)))


class Table:
    """The requests in the engine that are measured, by slot; every array is indexed by slot."""

    def __init__(self, capacity: int, token_stride: int) -> None:
        self._token_stride = token_stride
        self._stride = np.full(capacity, token_stride, np.int64)
        self._free = list(range(capacity - 1, -1, -1))
        self._slots: dict[str, int] = {}
        self._requests: list[Request | None] = [None] * capacity
        self._prompt_tokens = np.zeros(capacity, np.int64)
        self._phase = np.zeros(capacity, np.int64)
        self._high_water = np.full(capacity, -1, np.int64)
        self._batch_ids: list[str] = []
        self._batch_slots = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._slots)

    def begin(self, request: Request) -> int | None:
        """Follows a request from now on; returns its slot, or None when the table is full."""
        if not self._free:
            return None
        slot = self._free.pop()
        self._slots[request.key] = slot
        self._requests[slot] = request
        self._prompt_tokens[slot] = request.prompt_tokens
        stride = self._stride[slot] = 1 if request.is_canary else self._token_stride
        self._phase[slot] = phase_of(request.hash, stride)
        self._high_water[slot] = -1
        self._batch_ids = []
        return slot

    def end(self, key: str) -> tuple[Request, int] | None:
        """Forgets a request; returns it with the last position it reached, or None if it was not followed."""
        parted = self.part(key)
        if parted is None:
            return None
        slot, request = parted
        self.free(slot)
        return request, int(self._high_water[slot])

    def part(self, key: str) -> tuple[int, Request] | None:
        """Forgets a request and keeps its slot, for whoever still has to do with it."""
        slot = self._slots.pop(key, None)
        if slot is None:
            return None
        request = self._requests[slot]
        assert request is not None
        self._requests[slot] = None
        self._batch_ids = []
        return slot, request

    def free(self, slot: int) -> None:
        """Gives a slot back that was kept."""
        self._free.append(slot)

    def rewind(self, slot: int, position: int) -> bool:
        """Whether more than a request's rows up to a position were chosen; those beyond it may then be again."""
        is_beyond = bool(self._high_water[slot] > position)
        self._high_water[slot] = min(self._high_water[slot], position)
        return is_beyond

    def followed(self) -> list[str]:
        """The requests that are followed."""
        return list(self._slots)

    def slot(self, key: str) -> int | None:
        """The slot of a followed request."""
        return self._slots.get(key)

    def slots(self, ids: list[str]) -> NDArray[np.int64]:
        """The slots of a batch, −1 for requests that are not followed."""
        if ids != self._batch_ids:
            self._batch_ids = list(ids)
            self._batch_slots = np.array([self._slots.get(key, -1) for key in ids], np.int64)
        return self._batch_slots

    def select(
        self, ids: list[str], start: NDArray[np.int64], scheduled: NDArray[np.int64]
    ) -> Selection | None:
        """The rows to measure of a step over `ids` in batch order, or None where there are none.

        start: [requests] tokens computed before the step; scheduled: [requests] tokens in the step.
        """
        slots = self.slots(ids)
        position = start + scheduled - 1
        decoded = position - self._prompt_tokens[slots]
        fresh = (slots >= 0) & (decoded >= -1) & (position > self._high_water[slots])
        if not fresh.any():
            return None
        self._high_water[slots[fresh]] = position[fresh]
        stride = self._stride[slots]
        every = stride <= BURST
        offset = (decoded + self._phase[slots]) % stride
        measured = fresh & (every | (decoded == -1) | (offset < BURST))
        batch = np.flatnonzero(measured)
        if not batch.size:
            return None
        prompt = decoded[batch] == -1
        chosen = slots[batch]
        # A burst that began before the first decoded token is measured from its middle on.
        place = np.where(every, decoded, np.minimum(offset, decoded))[batch]
        last_of_burst = offset[batch] == np.minimum(BURST, stride[batch]) - 1
        return Selection(
            requests=[request for slot in chosen if (request := self._requests[slot]) is not None],
            slot=chosen,
            token=np.cumsum(scheduled)[batch] - 1,
            batch=batch,
            position=position[batch],
            burst=np.where(prompt, -1, place),
            attention=prompt | last_of_burst | (stride[batch] == 1),
        )

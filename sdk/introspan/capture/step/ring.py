"""Results on a device in; the same on the host out, some steps later, without waiting unless that is asked for."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

Tag = TypeVar("Tag")


class Event(Protocol):
    """A mark in what a device has to do, as `torch.cuda.Event` is one."""

    def record(self) -> None:
        """Sets the mark behind all that the device was given so far."""

    def query(self) -> bool:
        """Whether the device has come past the mark; never waits."""

    def synchronize(self) -> None:
        """Waits until it has."""


class _Passed:
    """The mark of a device that does everything at once, as a CPU does."""

    def record(self) -> None:
        """Nothing to set."""

    def query(self) -> bool:
        """Always passed."""
        return True

    def synchronize(self) -> None:
        """Nothing to wait for."""


@dataclass(frozen=True, slots=True, eq=False)
class _Result(Generic[Tag]):
    tag: Tag
    host: Tensor
    place: int


class ResultsRing(Generic[Tag]):
    """Copies results into `places` pieces of pinned memory by turns, each of up to `numbers` float32 numbers.

    All calls on one stream of the device: what overwrites a place is copied behind what was copied there before. Where
    all places are taken the oldest result is lost.
    """

    def __init__(
        self, places: int, numbers: int, device: torch.device, event: Callable[[], Event] | None = None
    ) -> None:
        if places < 1:
            raise ValueError(f"places must be >= 1, got {places}; a result has to be put somewhere")
        is_cpu = device.type == "cpu"
        make = event or (_Passed if is_cpu else torch.cuda.Event)
        self._memory = torch.empty(places, numbers, pin_memory=not is_cpu)
        self._events = [make() for _ in range(places)]
        self._free = deque(range(places))
        self._under_way: deque[_Result[Tag]] = deque()

    def __len__(self) -> int:
        """Results that are under way."""
        return len(self._under_way)

    def put(self, tag: Tag, result: Tensor) -> Tag | None:
        """Begins to copy a result, of any shape and of at most so many numbers as a place holds.

        Returns the tag of the result that was lost for it, None where none was. Raises ValueError for one too large.
        """
        size, room = result.numel(), self._memory.shape[1]
        if size > room:
            raise ValueError(
                f"a result of {size} numbers does not fit a place of {room}; make the ring wider"
            )
        lost = None
        if not self._free:
            oldest = self._under_way.popleft()
            self._free.append(oldest.place)
            lost = oldest.tag
        place = self._free.popleft()
        host = self._memory[place, :size].view(result.shape)
        # Contiguous and float32 before it leaves the device: a copy of another kind would go through other memory.
        host.copy_(result.to(torch.float32).contiguous(), non_blocking=True)
        self._events[place].record()
        self._under_way.append(_Result(tag, host, place))
        return lost

    def take(self, *, wait: bool = False) -> list[tuple[Tag, Tensor]]:
        """Results that have arrived, in the order in which they were put; those behind one that has not, stay.

        wait: until all have.
        """
        if wait and self._under_way:
            self._events[self._under_way[-1].place].synchronize()
        arrived: list[tuple[Tag, Tensor]] = []
        while self._under_way and self._events[self._under_way[0].place].query():
            result = self._under_way.popleft()
            arrived.append((result.tag, result.host.clone()))
            self._free.append(result.place)
        return arrived

    def clear(self) -> list[Tag]:
        """Forgets what is under way; the tags of that, in order."""
        forgotten = [result.tag for result in self._under_way]
        self._free.extend(result.place for result in self._under_way)
        self._under_way.clear()
        return forgotten

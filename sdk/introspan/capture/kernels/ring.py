"""Results on a device in; the same on the host out, some steps later, without ever waiting for the device."""

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


class _Passed:
    """The mark of a device that does everything at once, as a CPU does."""

    def record(self) -> None:
        """Nothing to set."""

    def query(self) -> bool:
        """Always passed."""
        return True


@dataclass(frozen=True, slots=True, eq=False)
class _Result(Generic[Tag]):
    tag: Tag
    host: Tensor
    place: int


class ResultsRing(Generic[Tag]):
    """Copies results into `places` pieces of pinned memory by turns, each of up to `numbers` float32 numbers.

    All calls on one stream of the device: what overwrites a place is copied behind what was copied there before. Where
    all places are taken the oldest result is lost, and counted in `dropped`.
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
        self.dropped = 0
        """Results that were lost because all places were taken."""

    def __len__(self) -> int:
        """Results that are under way."""
        return len(self._under_way)

    def put(self, tag: Tag, result: Tensor) -> None:
        """Begins to copy a result, of any shape and of at most so many numbers as a place holds."""
        size, room = result.numel(), self._memory.shape[1]
        if size > room:
            raise ValueError(
                f"a result of {size} numbers does not fit a place of {room}; make the ring wider"
            )
        if not self._free:
            self._free.append(self._under_way.popleft().place)
            self.dropped += 1
        place = self._free.popleft()
        host = self._memory[place, :size].view(result.shape)
        # Contiguous and float32 before it leaves the device: a copy of another kind would go through other memory.
        host.copy_(result.to(torch.float32).contiguous(), non_blocking=True)
        self._events[place].record()
        self._under_way.append(_Result(tag, host, place))

    def take(self) -> list[tuple[Tag, Tensor]]:
        """Results that have arrived, in the order in which they were put; those behind one that has not, stay."""
        arrived: list[tuple[Tag, Tensor]] = []
        while self._under_way and self._events[self._under_way[0].place].query():
            result = self._under_way.popleft()
            arrived.append((result.tag, result.host.clone()))
            self._free.append(result.place)
        return arrived

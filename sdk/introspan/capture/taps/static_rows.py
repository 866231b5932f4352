"""Tensors of a running forward in, the rows asked for out: the form that a CUDA graph can record.

Every operation is the same in every step, on the same memory: which rows are copied, where to, and whether the step
counts, is what `placement.py` has written into a tensor before it. Whether every tap fired is counted on the device
too, and read when the rows are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.utils.dlpack import from_dlpack

from introspan.capture.taps.gather import gather_on
from introspan.capture.taps.placement import Placement

_ON_HOST = frozenset({"cpu"})
"""Devices whose forwards Python runs each time; it is cheaper there to let it decide what is copied."""


def is_recorded(device: torch.device) -> bool:
    """Whether forwards on this device may be replayed from a graph."""
    return device.type not in _ON_HOST


class Buffers(NamedTuple):
    """What one tap works on, in the order of its operator's arguments.

    Each that is written is its own tensor, no view of one: see `apart`. fired counts forwards with rows, int64 [1].
    """

    slots: torch.Tensor
    checked: torch.Tensor
    armed: torch.Tensor
    rows: torch.Tensor
    outputs: torch.Tensor
    fired: torch.Tensor


def copy_rows(source: torch.Tensor, output: torch.Tensor, buffers: Buffers) -> None:
    """What a tap does: copies rows of one tensor [n, width] and of another to check it by, and counts that it did."""
    gather_on(source.device)(source, output, *buffers)


def apart(whole: torch.Tensor) -> list[torch.Tensor]:
    """The rows of a tensor, each a tensor of its own: a compiler would take each view of one to be written with all.

    Each has to begin at a multiple of 16 bytes, as a compiler takes every tensor to do.
    """
    return [from_dlpack(each) for each in whole]


class StaticRows:
    """The rows of several taps, each of a width of its own, and rows of other tensors to check them by.

    The first `always` taps copy in every step with rows. places: rows that are kept of each tap; checked_places: of
    what checks it. rows: memory for them, each [places, width]; None: each tap's is made here.
    """

    def __init__(
        self,
        widths: Sequence[int],
        always: int,
        places: int,
        checked_places: int,
        dtype: torch.dtype,
        device: torch.device,
        rows: Sequence[torch.Tensor] | None = None,
    ) -> None:
        taps = len(widths)
        if rows is None:
            rows = [torch.zeros(places, width, dtype=dtype, device=device) for width in widths]
        self._fired = torch.zeros(taps, 2, dtype=torch.int64, device=device)[:, :1]
        fired = apart(self._fired)
        self._placement = Placement(taps, always, places, checked_places, device)
        self.buffers = [
            Buffers(
                slots=self._placement.slots(tap),
                checked=self._placement.checked,
                armed=self._placement.armed[tap : tap + 1],
                rows=rows[tap],
                outputs=torch.zeros(checked_places, width, dtype=dtype, device=device),
                fired=fired[tap],
            )
            for tap, width in enumerate(widths)
        ]
        self._fired_before = torch.zeros(taps, dtype=torch.int64, device=device)
        self._silent_steps = torch.zeros(taps, dtype=torch.int64, device=device)
        self._is_judged = True
        self._is_unread = False
        self._found: list[int] = []
        self.asked: torch.Tensor | None = None
        """The index that was asked for, None where nothing is."""

    def select(
        self, index: torch.Tensor, start: int, *, with_output: bool, everywhere: bool, checked_start: int = 0
    ) -> None:
        """Asks for these token rows (int64 [n], on the host) of the next forward, at the places from start on.

        with_output: also for those that check them, at the places from checked_start on. everywhere: of all taps.
        """
        self._fired_before.copy_(self._fired[:, 0])
        self._placement.set(index, start, checked_start if with_output else None, everywhere=everywhere)
        self._is_judged = False
        self.asked = index

    def deselect(self) -> None:
        """Asks for nothing."""
        self.asked = None
        self._placement.clear()

    def silent(self) -> list[int]:
        """Taps that did not fire exactly once: in a step that `was_silent` told of, else since `select`. Waits."""
        if self._found:
            return self._found
        counts = (self._fired[:, 0] - self._fired_before).tolist()
        return [tap for tap, fired in enumerate(counts) if fired != 1]

    def complete(self) -> bool:
        """True: whether every tap that was asked fired exactly once is found out without waiting, for `was_silent`."""
        if not self._is_judged:
            fired = self._fired[:, 0] - self._fired_before
            self._silent_steps += fired != self._placement.armed
            self._is_judged = self._is_unread = True
        return True

    def silent_steps(self) -> torch.Tensor:
        """In how many steps that `complete` was asked about each tap did not fire exactly once, int64 [taps]."""
        return self._silent_steps

    def was_silent(self) -> bool:
        """Whether in any step that `complete` was asked about a tap did not fire exactly once. Waits for the device."""
        if self._is_unread:
            self._is_unread = False
            self._found = [tap for tap, steps in enumerate(self._silent_steps.tolist()) if steps]
        return bool(self._found)

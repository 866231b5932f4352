"""The rows asked for of a coming forward in; tensors at addresses that stay, which say where each row goes, out.

A graph replays what it recorded, at the addresses that it recorded, without Python. So whether a step is measured,
which of its rows, and where they go behind those that wait, are numbers in one tensor that is allocated once. One copy
before a step fills it; on a GPU from pinned memory, without waiting.
"""

import torch


class Placement:
    """What `taps` taps copy in the coming forward. The first `always` of them copy in every step with rows.

    places: places for rows in the buffers; checked_places: places for what is kept beside them to check the taps.
    checked: [checked_places], as `slots` for those; armed: [taps], 1 for each that is to fire in the coming forward,
    else 0. All tensors are int64 views of one, and what is recorded only reads them.
    """

    def __init__(
        self, taps: int, always: int, places: int, checked_places: int, device: torch.device
    ) -> None:
        self._always = always
        sizes = [places, places, checked_places, taps]
        # As it is between steps: no place is written, no tap counts.
        idle = torch.full((sum(sizes),), -1, dtype=torch.int64)
        idle[-taps:] = 0
        self._sizes = sizes
        self._idle_host = idle
        self._idle = idle.to(device)
        self._plan = self._idle.clone()
        self._usual, self._others, self.checked, self.armed = torch.split_with_sizes(self._plan, sizes)
        self.is_set = False
        """Whether anything is asked for."""

    def slots(self, tap: int) -> torch.Tensor:
        """[places]: the row of the coming forward that goes to each place, −1 for none."""
        return self._usual if tap < self._always else self._others

    def set(self, index: torch.Tensor, start: int, checked_start: int | None, *, everywhere: bool) -> None:
        """Asks for these rows (int64 [n], on the host), to be put at the places from start on.

        checked_start: the place of the first one to be checked, None for no check; as many are checked as fit.
        everywhere: of the taps beyond `always` too.
        """
        # New each time: what torch's allocator of pinned memory gives is in no copy that is still under way.
        plan = torch.empty(self._idle.shape, dtype=torch.int64, pin_memory=self._idle.is_cuda)
        plan.copy_(self._idle_host)
        usual, others, checked, armed = torch.split_with_sizes(plan, self._sizes)
        stop = start + index.numel()
        usual[start:stop] = index
        armed[: self._always] = 1
        if everywhere:
            others[start:stop] = index
            armed[self._always :] = 1
        if checked_start is not None:
            count = min(index.numel(), checked.numel() - checked_start)
            checked[checked_start : checked_start + count] = index[:count]
        self._plan.copy_(plan, non_blocking=True)
        self.is_set = True

    def clear(self) -> None:
        """Asks for nothing: forwards until the next `set` pass unseen."""
        if self.is_set:
            self._plan.copy_(self._idle)
            self.is_set = False

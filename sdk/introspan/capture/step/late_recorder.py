"""As recorder.py, where tokens come steps after they were drawn: rows are held until theirs was delivered.

What is measured in a step does not wait for its tokens, since the blocks of its keys would not. The values are kept,
and go on when it is known that the row's token was delivered; a row whose token was not is dropped, and counted.
"""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from introspan.capture.columns import Layout
from introspan.capture.health import Health
from introspan.capture.output.repetition import longest_period_tail
from introspan.capture.output.sampler import Sampling
from introspan.capture.rows import Selection, Table
from introspan.capture.step.delivery import Arrival, Deliveries
from introspan.capture.step.ending import Ending
from introspan.capture.step.handover import Measured
from introspan.capture.step.probes import Probes
from introspan.capture.step.recorder import Recorder
from introspan.capture.step.sinks import Sinks
from introspan.observation import Request


class LateRecorder(Recorder):
    """Measures one model. depth: steps that the engine has under way at most; capacity: that of the table.

    An adapter calls `schedule` first of all when a step is handed over, `sent` last when it has run.
    """

    def __init__(
        self,
        layout: Layout,
        table: Table,
        probes: Probes,
        health: Health,
        sinks: Sinks,
        rows_max: int,
        capacity: int,
        depth: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(layout, table, probes, health, sinks, rows_max, clock)
        self._deliveries = Deliveries(capacity, depth)
        self._held: list[Measured] = []
        self._taken: Selection | None = None
        self._repetition = layout.blocks["output.repetition"]
        self._repeating: dict[tuple[int, int], int] = {}

    def begin_ending(self, request: Request, sampling: Sampling, ending: Ending) -> None:
        """Follows a request from its first step on, which ends as it says."""
        self.begin(request, sampling)
        slot = self._table.slot(request.key)
        if slot is not None:
            self._deliveries.begin(slot, request, ending)

    def finish(self, key: str) -> None:
        """Ends a request; it is handed on when it is known how far it was delivered."""
        try:
            if self._waiting.holds(key):
                self.flush()
        finally:
            parted = self._table.part(key)
            if parted is not None:
                self._deliveries.finish(*parted)

    def rewind(self, key: str, position: int) -> None:
        """The engine goes on with a request behind a position; what it computed beyond was not delivered."""
        slot = self._table.slot(key)
        if slot is None or not self._table.rewind(slot, position):
            return
        self.flush()
        self._deliveries.rewind(slot, position)
        held, self._held = self._held, []
        for measured in held:
            is_void = (measured.selection.slot == slot) & (measured.selection.position > position)
            self._keep(measured, ~is_void)
            self._drop(measured, is_void)

    def schedule(self) -> None:
        """The engine has handed a step over: rows of which it is known by now that they were delivered go on."""
        self._deliveries.schedule()
        self._collect(wait=False)

    def settle(self) -> None:
        """Waits for tokens under way, where the engine has nothing to run before them itself."""
        self._collect(wait=True)

    def after_sampling(
        self, tokens: Callable[[int], int], generated: Callable[[int], NDArray[np.int32]] | None
    ) -> None:
        """Takes the step's rows in. What is said of all tokens generated is said when this step's have come."""
        assert generated is None, "tokens come later"
        self._taken = self._selection
        super().after_sampling(tokens, None)

    def sent(self, ids: list[str], position: NDArray[np.int64], arrival: Arrival | None) -> None:
        """A step has run whose tokens are on their way. position: [requests] of each one's last row, −1 for none."""
        taken, self._taken = self._taken, None
        slots = self._table.slots(ids)
        if (slots >= 0).any():
            self._deliveries.add(np.where(position >= 0, slots, -1), position, taken, arrival)

    def discard(self) -> None:
        """Drops the step at hand, every row that waits and every one that is held, and counts them."""
        self._taken = None
        held, self._held = self._held, []
        self._repeating.clear()
        self._health.dropped_rows["discarded"] += sum(len(measured.selection) for measured in held)
        super().discard()

    def leave(self) -> None:
        """Ends all requests between two steps; what is known to be delivered goes on."""
        self.schedule()
        self.flush()
        for key in self._table.followed():
            self.finish(key)
        self.settle()
        self.discard()

    def close(self) -> None:
        """Computes what waits, and hands on what is known to be delivered; what is not is dropped, and counted."""
        super().close()
        self.settle()
        held, self._held = self._held, []
        for measured in held:
            self._drop(measured, np.ones(len(measured.selection), np.bool_))

    def _hand_on(self, measured: Measured) -> None:
        self._held.append(measured)

    def _collect(self, *, wait: bool) -> None:
        come = self._deliveries.collect(wait=wait)
        if self._probes.output is not None and sum(map(self._repeats, come)):
            self.flush()
        ended = self._deliveries.end(self._lands_later)
        if ended:
            self._release()
        for each in ended:
            if self._table.slot(each.request.key) is None:  # the id may have been given again
                self._forget(each.request.key)
            self._table.free(each.slot)
            self._guard("capture", partial(self._handover.end, each.request, each.last_position))
        self._deliveries.confirm()
        self._release()

    def _lands_later(self, slot: int) -> bool:  # noqa: ARG002 - where values have come with their rows
        """Whether values of a slot's rows are still to come: only then its request's end is known."""
        return False

    def _repeats(self, selection: Selection) -> bool:
        """Whether a request begins to repeat itself; what was found is kept for when the rows go on."""
        rows = zip(selection.slot.tolist(), selection.position.tolist(), strict=True)
        found = {row: longest_period_tail(self._deliveries.tail(*row)) for row in rows}
        self._repeating.update((row, length) for row, length in found.items() if length)
        return self._onsets.is_any_new(selection, np.flatnonzero(list(found.values())).tolist())

    def _release(self) -> None:
        held, self._held = self._held, []
        for measured in held:
            slot, position = measured.selection.slot, measured.selection.position
            is_delivered = position <= self._deliveries.delivered[slot]
            is_over = self._deliveries.has_ended[slot]
            self._keep(measured, ~is_delivered & ~is_over)
            self._drop(measured, is_over & ~is_delivered)
            if is_delivered.any():
                self._give(measured.pick(np.flatnonzero(is_delivered)))

    def _give(self, measured: Measured) -> None:
        rows = zip(measured.selection.slot.tolist(), measured.selection.position.tolist(), strict=True)
        repeating = [self._repeating.pop(row, 0) for row in rows]
        if self._probes.output is not None and self._health.is_on("output"):
            measured.values[:, self._repetition.start] = repeating
        try:
            self._handover.give(measured)
        except Exception:
            self._health.dropped_rows["discarded"] += len(measured.selection)
            raise

    def _keep(self, measured: Measured, is_kept: NDArray[np.bool_]) -> None:
        if is_kept.all():
            self._held.append(measured)
        elif is_kept.any():
            self._held.append(measured.pick(np.flatnonzero(is_kept)))

    def _drop(self, measured: Measured, is_lost: NDArray[np.bool_]) -> None:
        if is_lost.any():
            lost = measured.selection.pick(np.flatnonzero(is_lost))
            for row in zip(lost.slot.tolist(), lost.position.tolist(), strict=True):
                self._repeating.pop(row, None)
            self._health.dropped_rows["not_delivered"] += len(lost)

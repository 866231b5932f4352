"""As late_recorder.py, where what is measured is computed on a device, and its values come to the host steps later.

Nothing here waits for the device but the check of the first rows, and `settle`, when the engine waits for it itself.
"""

import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from introspan.capture.columns import Layout
from introspan.capture.health import Health
from introspan.capture.part import Part
from introspan.capture.rows import Selection, Table
from introspan.capture.step.handover import Measured
from introspan.capture.step.landing import Landing
from introspan.capture.step.late_recorder import LateRecorder
from introspan.capture.step.probes import Probes, Streams
from introspan.capture.step.sinks import Sinks
from introspan.capture.taps.self_check import check_streams


class Steps(Protocol):
    """Which steps of an engine are measured; see `runner/ladder.py`."""

    @property
    def steps(self) -> int:
        """The number of the step at hand."""

    def measures_now(self) -> bool:
        """Whether rows of the step at hand may be measured."""

    def fall(self, signal: str, detail: str, since: int) -> bool:
        """A signal's taps were silent; whether it can be measured all the same from now on."""


class DeviceRecorder(LateRecorder):
    """Measures one model. parts: where the probes put what they have begun to compute; landing: how that comes over.

    steps: which steps rows may be measured in, and what follows where taps are silent.
    """

    # A flush is a few launches here, and what is not finite is found in its values: nobody should wait for long.
    longest_wait_seconds = 1.0

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
        parts: list[Part],
        landing: Landing,
        steps: Steps,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(layout, table, probes, health, sinks, rows_max, capacity, depth, clock)
        self._parts = parts
        self._landing = landing
        self._steps = steps
        self._since = 0

    def begin_step(self, ids: list[str], start: NDArray[np.int64], scheduled: NDArray[np.int64]) -> None:
        """Chooses the rows of the coming forward, if any may be measured in it."""
        if self._steps.measures_now():
            super().begin_step(ids, start, scheduled)
            if not self._waiting.count:
                self._since = self._steps.steps
        else:
            self.flush()  # rows that the engine runs otherwise for wait with no others
            none = np.zeros(0, np.int64)
            super().begin_step([], none, none)

    def rewind(self, key: str, position: int) -> None:
        """The engine goes on with a request behind a position; what it computed beyond was not delivered."""
        slot = self._table.slot(key)
        super().rewind(key, position)
        if slot is not None:
            self._landing.void(slot, position)

    def settle(self) -> None:
        """Waits for tokens and values under way, where the engine has nothing to run before them itself."""
        super().settle()
        if len(self._landing):  # what the tokens made urgent
            super().settle()

    def discard(self) -> None:
        """Drops the step at hand, every row that waits, is under way or is held, and counts them."""
        self._parts.clear()
        self._health.dropped_rows["discarded"] += self._landing.clear()
        super().discard()

    def _hand_on(self, measured: Measured) -> None:
        parts = self._parts.copy()
        self._parts.clear()
        self._landing.put(measured, parts, self._since)

    def _collect(self, *, wait: bool) -> None:
        for measured, is_wanted in self._landing.land(wait=wait):
            self._keep(measured, is_wanted)
            self._drop(measured, ~is_wanted)
        super()._collect(wait=wait)

    def _lands_later(self, slot: int) -> bool:
        return self._landing.holds(slot)

    def _measure_streams(self, stream: Streams, selection: Selection, values: NDArray[np.float32]) -> None:
        # Whether later steps' taps were silent is among what the probe computes.
        if not self._streams_checked:
            silent = stream.taps.silent()
            if silent and self._steps.fall("residual", stream.silence().detail, self._since):
                self._streams_lost = True
                return
            self._streams_checked = check_streams(stream.taps, len(selection), self._health)
        if self._health.is_on("residual"):
            stream.measure(selection, values)

    def _is_not_finite(self, selection: Selection, before: int) -> bool:  # noqa: ARG002 - asking would wait
        return False

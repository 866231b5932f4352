"""As late_recorder.py, where what is measured is computed on a device, and its values come to the host steps later.

Nothing here waits for the device but the check of the first rows, and `settle`, when the engine waits for it itself.
"""

import time
from collections.abc import Callable

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


class DeviceRecorder(LateRecorder):
    """Measures one model. parts: where the probes put what they have begun to compute; landing: how that comes over.

    measures_now: asked once a step, whether rows may be measured in it.
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
        measures_now: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(layout, table, probes, health, sinks, rows_max, capacity, depth, clock)
        self._parts = parts
        self._landing = landing
        self._measures_now = measures_now

    def begin_step(self, ids: list[str], start: NDArray[np.int64], scheduled: NDArray[np.int64]) -> None:
        """Chooses the rows of the coming forward, if any may be measured in it."""
        # A step without rows: what was measured before is not lost by it, and nothing of it counts as seen.
        none = np.full(0, 0, np.int64)
        super().begin_step(*((ids, start, scheduled) if self._measures_now() else ([], none, none)))

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
        self._landing.put(measured, parts)

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
            self._streams_checked = check_streams(stream.taps, len(selection), self._health)
        if self._health.is_on("residual"):
            stream.measure(selection, values)

    def _is_not_finite(self, selection: Selection, before: int) -> bool:  # noqa: ARG002 - asking would wait
        return False

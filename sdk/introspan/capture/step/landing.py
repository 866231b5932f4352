"""Measured rows whose values a device still computes in; the same with their values out, in order, once they came."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from introspan.capture.health import Health
from introspan.capture.part import Part
from introspan.capture.step.handover import Measured
from introspan.capture.step.ring import ResultsRing
from introspan.observation import Disabled, Observation

Fall = Callable[[str, str, int], bool]
"""Signal, detail, and the step since which its taps were silent; whether it is measured all the same from now on."""

_Take = Callable[[NDArray[np.float32], NDArray[np.float32]], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Rows that were computed together; parts: the probe, shape and taker of each, in the order of the result.

    since: the engine's step that the first row is of.
    """

    measured: Measured
    parts: list[tuple[str, torch.Size, _Take]]
    since: int
    void: list[tuple[int, int]]
    """Slots whose rows behind a position are not wanted any more."""


class Landing:
    """Batches on their way from the device. What of one is lost on the way is lost whole, and counted.

    blocks: the columns of each probe that can tell, too late, that its taps were silent. fall: asked what follows;
    where it says that nothing helps, the signal is switched off.
    """

    def __init__(
        self, ring: ResultsRing[_Batch], blocks: dict[str, list[slice]], health: Health, fall: Fall
    ) -> None:
        self._ring = ring
        self._blocks = blocks
        self._health = health
        self._fall = fall
        self._batches: list[_Batch] = []
        self._untrue: dict[str, str] = {}

    def __len__(self) -> int:
        """Batches that are under way."""
        return len(self._batches)

    def holds(self, slot: int) -> bool:
        """Whether rows of a slot's request are under way."""
        return any(bool((batch.measured.selection.slot == slot).any()) for batch in self._batches)

    def put(self, measured: Measured, parts: list[Part], since: int = 0) -> None:
        """Begins to bring over what probes compute of some rows; measured.values are those of rows not measured yet.

        since: the engine's step that the first of them is of.
        """
        numbers = [part.numbers.flatten() for part in parts]
        # Where nothing was computed the rows still come behind those before them.
        result = torch.cat(numbers) if numbers else torch.empty(0)
        batch = _Batch(measured, [(part.probe, part.numbers.shape, part.take) for part in parts], since, [])
        lost = self._ring.put(batch, result)
        if lost is not None:
            self._batches.remove(lost)
            self._health.dropped_rows["device_behind"] += len(lost.measured.selection)
        self._batches.append(batch)

    def void(self, slot: int, position: int) -> None:
        """The rows of a slot's request behind a position are not wanted any more."""
        for batch in self._batches:
            batch.void.append((slot, position))

    def silent(self, probe: str, detail: str) -> None:
        """Said by a part while it is taken: the probe's taps were silent, and nothing that it computed is true."""
        self._untrue[probe] = detail

    def land(self, *, wait: bool) -> Iterator[tuple[Measured, NDArray[np.bool_]]]:
        """Rows that have come, and which of them are wanted [rows]. wait: for all that are under way."""
        for batch, result in self._ring.take(wait=wait):
            self._batches.remove(batch)
            yield self._taken(batch, result.numpy()), _wanted(batch)

    def clear(self) -> int:
        """Forgets what is under way; how many rows that were."""
        self._ring.clear()
        rows = sum(len(batch.measured.selection) for batch in self._batches)
        self._batches.clear()
        return rows

    def _taken(self, batch: _Batch, result: NDArray[np.float32]) -> Measured:
        values, start = batch.measured.values, 0
        self._untrue.clear()
        for probe, shape, take in batch.parts:
            numbers = result[start : start + shape.numel()].reshape(shape)
            start += shape.numel()
            if not self._health.is_on(probe):
                continue  # it was switched off meanwhile
            try:
                take(numbers, values)
            except Exception as error:  # noqa: BLE001 - the edge of a probe
                self._health.error(probe, error)
        for probe, detail in self._untrue.items():
            if not self._fall(probe, detail, batch.since):
                self._health.refuse(Disabled(probe, "tap_silent", detail))
            for block in self._blocks.get(probe, []):
                values[:, block] = np.nan
        if "residual" not in self._untrue:
            return batch.measured
        return replace(batch.measured, canaries=dict[int, Observation](), is_whole=False)


def _wanted(batch: _Batch) -> NDArray[np.bool_]:
    selection = batch.measured.selection
    wanted = np.ones(len(selection), np.bool_)
    for slot, position in batch.void:
        wanted &= (selection.slot != slot) | (selection.position <= position)
    return wanted

"""Probes of a host in; the same as if a device computed what they measure, which comes over some steps later, out."""

from dataclasses import dataclass, field

import numpy as np
import torch

from introspan.capture.columns import Layout
from introspan.capture.health import Health
from introspan.capture.output.probe import OutputProbe
from introspan.capture.part import Part
from introspan.capture.step.landing import Landing
from introspan.capture.step.ring import ResultsRing
from introspan.capture.stream.probe import StreamProbe


@dataclass
class Lag:
    """How far a device is behind. steps: of the engine's until it has done what it was given in one of them."""

    steps: int
    now: int = 0
    given: int = 0
    done: int = 0
    waits: int = 0
    busy_waits: int = 0
    """Waits in steps that ran something."""


class Mark:
    """A mark that is passed so many steps later."""

    def __init__(self, lag: Lag) -> None:
        self._lag = lag
        self._due = self._number = 0

    def record(self) -> None:
        self._lag.given += 1
        self._number, self._due = self._lag.given, self._lag.now + self._lag.steps

    def query(self) -> bool:
        return self._number <= self._lag.done or self._lag.now >= self._due

    def synchronize(self) -> None:
        self._lag.waits += 1
        self._lag.done = self._number  # and all that it was given before


class EachStep:
    """Steps of an engine that are measured all, and nothing helps where taps are silent."""

    steps = 0

    def measures_now(self) -> bool:
        return True

    def fall(self, *_) -> bool:
        return False


def landing(lag: Lag, layout: Layout, health: Health, rows_max: int, places: int = 64) -> Landing:
    blocks = {"residual": [block for name, block in layout.blocks.items() if name.startswith("residual.")]}
    numbers = rows_max * len(layout.columns)
    ring = ResultsRing(places, numbers, torch.device("cpu"), lambda: Mark(lag))
    return Landing(ring, blocks, health, EachStep().fall)


@dataclass
class _Begun:
    layout: Layout
    parts: list[Part]
    families: tuple[str, ...]
    probe: str = field(init=False)

    def __post_init__(self) -> None:
        self.probe = self.families[0]

    def begin(self, count: int, measure) -> None:
        """What measure writes to values is what comes over, for the columns of these families."""
        columns = np.concatenate(
            [
                np.arange(block.start, block.stop)
                for name, block in self.layout.blocks.items()
                if name.startswith(self.families) and name != "output.repetition"
            ]
        )
        values = np.full((count, len(self.layout.columns)), np.nan, np.float32)
        measure(values)

        def take(numbers, into) -> None:
            into[:, columns] = numbers

        self.parts.append(Part(self.probe, torch.from_numpy(values[:, columns]), take))


class BegunStreams(StreamProbe):
    """Residual signals that come later."""

    def __init__(self, parts: list[Part], layout: Layout, *args) -> None:
        super().__init__(layout, *args)
        self._begun = _Begun(layout, parts, ("residual",))

    def measure(self, selection, values) -> None:  # noqa: ARG002 - what is written comes later
        self._begun.begin(len(selection), lambda into: super(BegunStreams, self).measure(selection, into))


class BegunOutput(OutputProbe):
    """Output and sampler signals that come later."""

    def __init__(self, parts: list[Part], layout: Layout, *args) -> None:
        super().__init__(layout, *args)
        self._begun = _Begun(layout, parts, ("output", "sampler"))

    def measure(self, selection, values) -> None:  # noqa: ARG002 - what is written comes later
        self._begun.begin(len(selection), lambda into: super(BegunOutput, self).measure(selection, into))

"""What a worker measures with, together.

The recorder knows probes by what it calls: on a device they begin to compute where on a host they have computed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from introspan.capture.output.sampler import Sampling
from introspan.capture.rows import Selection
from introspan.capture.stream.reprefill import ReprefillProbe
from introspan.capture.taps.block_table import TablesOf
from introspan.capture.taps.streams import Taps
from introspan.observation import Disabled, Observation


class Streams(Protocol):
    """Measures residual streams; see `stream/probe.py`."""

    @property
    def taps(self) -> Taps:
        """What it reads."""

    def forget(self, slot: int) -> None:
        """Drops what is kept of a request whose slot is free again."""

    def silence(self) -> Disabled:
        """What is said where a step's streams did not pass their taps."""

    def measure(self, selection: Selection, values: NDArray[np.float32]) -> None:
        """Writes, or begins to compute, the signals of the rows in the taps' buffers."""


class Attention(Protocol):
    """Measures attention; see `attention/probe.py`."""

    @property
    def can_wait(self) -> bool:
        """Whether rows may be computed steps later, as long as their requests keep their blocks."""

    def is_too_much(self, selection: Selection) -> bool:
        """Whether the rows that wait must be computed before these."""

    def select(self, selection: Selection) -> None:
        """Asks for rows of the coming forward."""

    def deselect(self) -> None:
        """Asks for nothing."""

    @property
    def needs_block_tables(self) -> bool:
        """Whether `take_block_tables` has anything to do in this step."""

    def take_block_tables(self, tables: TablesOf) -> None:
        """Takes the step's block tables."""

    def take_in(self, selection: Selection, before: int) -> None:
        """Adds the step's rows to those that wait."""

    def measure(self, values: NDArray[np.float32]) -> None:
        """Writes, or begins to compute, the signals of the rows that wait."""

    def drop(self) -> None:
        """Forgets the rows that wait."""


class Output(Protocol):
    """Measures logits and sampler; see `output/probe.py`."""

    def begin(self, slot: int, sampling: Sampling) -> None:
        """Remembers the parameters of a request."""

    def keep(self, selection: Selection, logits: torch.Tensor) -> None:
        """Copies the step's rows of the raw logits."""

    def deliver(self, selection: Selection, before: int, tokens: Callable[[int], int]) -> None:
        """Notes the tokens that were drawn from them."""

    def not_finite(self) -> list[int]:
        """Which rows of the step that was delivered last are not finite."""

    def abandon(self) -> None:
        """Forgets the logits that were kept last."""

    def measure(self, selection: Selection, values: NDArray[np.float32]) -> None:
        """Writes, or begins to compute, the signals of the rows that were kept."""

    def drop(self) -> None:
        """Forgets the rows that were kept."""


class Canary(Protocol):
    """Measures canaries; see `stream/canary.py`."""

    def measure(self, selection: Selection, found: dict[int, Observation]) -> None:
        """Puts what is measured of the canaries among the rows into found by row, now or when it has come."""


@dataclass(frozen=True, slots=True, eq=False)
class Probes:
    """What measures; stream, attention, output are None where the model does not offer them or another rank measures.

    canary is None where no canaries are known, reprefill where no requests are sent again.
    """

    stream: Streams | None
    attention: Attention | None
    output: Output | None
    canary: Canary | None = None
    reprefill: ReprefillProbe | None = None

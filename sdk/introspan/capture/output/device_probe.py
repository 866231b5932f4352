"""Raw logits and sampled tokens on a device in; what is computed of them there, to be taken on the host, out.

Nothing here waits for the device. Imports Triton: it is imported where kernels compute, only.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from introspan.capture.columns import OUTPUT_SIGNALS, Layout
from introspan.capture.crossing import cross
from introspan.capture.health import Health
from introspan.capture.kernels.sampler import draws
from introspan.capture.kernels.vocabulary import vocabulary_numbers
from introspan.capture.output.asked import Asked
from introspan.capture.output.sampler import Sampling
from introspan.capture.output.uniform import uniform_of
from introspan.capture.part import Part
from introspan.capture.rows import Selection

_SAMPLER_SIGNALS = ("sampler.pit", "sampler.greedy_mismatch")
_NO_ROWS = np.zeros(0, np.int64)


@runtime_checkable
class Sampled(Protocol):
    """The tokens of a step, which may be on the device; see `runner/arrival.py`."""

    def __len__(self) -> int:
        """Requests in the batch."""

    def at(self, places: torch.Tensor) -> torch.Tensor:
        """The tokens at places in the batch, where the places are."""


class DeviceOutputProbe:
    """Measures what `OutputProbe` does, of the same rows, on the device of the logits, and waits for it nowhere.

    Rows that wait take rows_max × V numbers of the logits' dtype there: 96 rows of 128,256 in bfloat16 are 24 MiB.
    Beside them are less than 200 bytes a row, while they are computed too: nothing else is as wide as V.
    """

    def __init__(self, layout: Layout, capacity: int, rows_max: int, health: Health) -> None:
        self._columns = {
            probe: [layout.blocks[name].start for name in signals]
            for probe, signals in (("output", OUTPUT_SIGNALS), ("sampler", _SAMPLER_SIGNALS))
        }
        self._health = health
        self._rows_max = rows_max
        self._asked = Asked(capacity, health)
        self._logits = torch.empty(0, 0)
        self._tokens = torch.empty(0, dtype=torch.int64)
        self._rows: list[int] = []
        self._arriving = self._places = _NO_ROWS
        self._index = torch.empty(0, dtype=torch.int64)

    def reserve(self, vocabulary: int, dtype: torch.dtype, device: torch.device) -> None:
        """Makes the memory of the rows that wait, which else is made when the first come."""
        self._logits = torch.empty(self._rows_max, vocabulary, dtype=dtype, device=device)
        self._tokens = torch.empty(self._rows_max, dtype=torch.int64, device=device)

    def begin(self, slot: int, sampling: Sampling) -> None:
        """Remembers the parameters of a request that is followed from now on."""
        self._asked.begin(slot, sampling)

    def keep(self, selection: Selection, logits: torch.Tensor) -> None:
        """Copies the step's rows of the raw logits [requests, V] before grammar or sampler write into them."""
        rows = np.flatnonzero(selection.attention)
        self._arriving = _NO_ROWS  # what raises below must not be taken for kept
        if not rows.size:
            return
        places, stop = selection.batch[rows], len(self._rows) + rows.size
        _check(places, len(logits))
        if stop > self._rows_max:
            raise ValueError(
                f"{stop} rows of logits do not fit {self._rows_max}; rows must be computed before"
            )
        kept = self._logits
        if (logits.shape[1], logits.dtype, logits.device) != (kept.shape[1], kept.dtype, kept.device):
            if self._rows:
                raise ValueError(f"logits {logits.dtype} [{logits.shape[1]}] behind others of another kind")
            self.reserve(logits.shape[1], logits.dtype, logits.device)
        index = cross(torch.from_numpy(places), logits.device)
        torch.index_select(logits, 0, index, out=self._logits[len(self._rows) : stop])
        self._arriving, self._places, self._index = rows, places, index

    def deliver(self, selection: Selection, before: int, tokens: Callable[[int], int]) -> None:
        """Takes the tokens that were drawn from the logits kept last; before counts the rows of earlier steps."""
        rows, self._arriving = self._arriving, _NO_ROWS
        if not rows.size:
            return
        if not isinstance(tokens, Sampled):
            raise TypeError(f"{type(tokens).__name__} gives tokens one by one, which would wait for each")
        places = selection.batch[rows]
        _check(places, len(tokens))
        index = self._index  # the same, but where a request has several rows of logits
        if not np.array_equal(places, self._places):
            index = cross(torch.from_numpy(places), self._logits.device)
        start = len(self._rows)
        self._tokens[start : start + rows.size].copy_(tokens.at(index))
        self._rows += (before + rows).tolist()

    def abandon(self) -> None:
        """Forgets the logits that were kept last, for which no tokens were delivered."""
        self._arriving = _NO_ROWS

    def drop(self) -> None:
        """Forgets the rows that were kept."""
        self._rows = []

    def launch(self, selection: Selection) -> list[Part]:
        """Begins to compute the output and sampler signals of the rows that were kept.

        selection: all rows, those among them that were not kept too.
        """
        count = len(self._rows)
        if not count:
            return []
        logits, tokens, rows = self._logits[:count], self._tokens[:count], np.array(self._rows)
        parts = [self._part("output", vocabulary_numbers(logits, tokens), rows)]
        if self._health.is_on("sampler"):
            try:
                parts.append(self._sampled(selection, logits, tokens, rows))
            except Exception as error:  # noqa: BLE001 - must not cost the output signals
                self._health.error("sampler", error)
        return parts

    def _sampled(
        self, selection: Selection, logits: torch.Tensor, tokens: torch.Tensor, rows: NDArray[np.int64]
    ) -> Part:
        slots = selection.slot[rows]
        asked = self._asked.of(slots, uniform_of(selection, rows.tolist()))
        found = draws(logits, tokens, cross(torch.from_numpy(asked), logits.device))
        return self._part("sampler", found, rows, self._asked.skipped(slots))

    def _part(self, probe: str, numbers: torch.Tensor, rows: NDArray[np.int64], skipped: int = 0) -> Part:
        """numbers: [signals, rows]; skipped: of the rows, those that only count."""
        columns = self._columns[probe]

        def take(numbers: NDArray[np.float32], values: NDArray[np.float32]) -> None:
            values[rows[:, None], columns] = numbers.T
            self._health.sampler_rows_skipped += skipped

        return Part(probe, numbers, take)


def _check(places: NDArray[np.int64], count: int) -> None:
    """Here, because a device that is asked for a row that is not there serves nobody any more."""
    if int(places.max()) >= count:
        raise IndexError(f"row {int(places.max())} of {count}")

"""Raw logits, sampling parameters and delivered tokens of a few steps in; output and sampler signals out."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from introspan.capture.columns import Layout
from introspan.capture.health import Health
from introspan.capture.output import output_statistics
from introspan.capture.rows import Selection
from introspan.capture.sampler import GREEDY_TEMPERATURE, SamplingParameters, greedy_mismatch, pit
from introspan.draw import draw


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a request asked of the sampler; reproducible where no processor but these four applies."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    reproducible: bool


class OutputProbe:
    """Measures logits and sampler for the rows whose attention is measured too: the last of each burst.

    A vocabulary is a hundred times wider than a stream, and these are the costliest signals on a CPU; three
    consecutive tokens say little more than one.
    """

    def __init__(self, layout: Layout, capacity: int, rows_max: int, health: Health) -> None:
        self._blocks = layout.blocks
        self._health = health
        self._rows_max = rows_max
        self._logits = torch.empty(0, 0)
        self._rows: list[int] = []
        self._tokens: list[int] = []
        self._arriving: NDArray[np.int64] = np.zeros(0, np.int64)
        self._temperature = np.zeros(capacity, np.float32)
        self._top_p = np.ones(capacity, np.float32)
        self._min_p = np.zeros(capacity, np.float32)
        self._top_k = np.zeros(capacity, np.int64)
        self._filtered = np.zeros(capacity, np.bool_)
        self._reproducible = np.zeros(capacity, np.bool_)

    def begin(self, slot: int, sampling: Sampling) -> None:
        """Remembers the parameters of a request that is followed from now on."""
        self._temperature[slot] = sampling.temperature
        self._top_p[slot] = sampling.top_p
        self._min_p[slot] = sampling.min_p
        self._top_k[slot] = sampling.top_k
        self._filtered[slot] = sampling.top_k > 0 or sampling.top_p < 1 or sampling.min_p > 0
        self._reproducible[slot] = sampling.reproducible

    def keep(self, selection: Selection, logits: torch.Tensor) -> None:
        """Copies the step's rows of the raw logits [requests, V] before grammar or sampler write into them."""
        self._arriving = self._arriving[:0]
        rows = np.flatnonzero(selection.attention)
        if not rows.size:
            return
        start, stop = len(self._rows), len(self._rows) + rows.size
        if stop > len(self._logits):
            rows_kept = max(stop, min(2 * stop, self._rows_max))
            larger = torch.empty(rows_kept, logits.shape[1], dtype=logits.dtype, device=logits.device)
            if start:
                larger[:start] = self._logits[:start]
            self._logits = larger
        torch.index_select(logits, 0, torch.from_numpy(selection.batch[rows]), out=self._logits[start:stop])
        self._arriving = rows

    def deliver(self, selection: Selection, before: int, tokens: Callable[[int], int]) -> None:
        """Notes the tokens that were drawn from the logits kept last; before counts the rows of earlier steps."""
        for row in self._arriving.tolist():
            self._rows.append(before + row)
            self._tokens.append(tokens(int(selection.batch[row])))
        self._arriving = self._arriving[:0]

    def abandon(self) -> None:
        """Forgets the logits that were kept last, for which no tokens were delivered."""
        self._arriving = self._arriving[:0]

    def drop(self) -> None:
        """Forgets the rows that were kept."""
        self._rows, self._tokens = [], []

    def measure(self, selection: Selection, seeds: NDArray[np.uint64], values: NDArray[np.float32]) -> None:
        """Writes the output and sampler signals of the rows that were kept into values [rows, columns].

        selection and seeds (request hashes) are of all rows.
        """
        if not self._rows:
            return
        rows, token_ids = np.array(self._rows), torch.tensor(self._tokens)
        logits = self._logits[: rows.size].float()
        statistics = output_statistics(logits, token_ids)
        for name in ("entropy", "margin", "logprob", "nonfinite"):
            values[rows, self._blocks[f"output.{name}"].start] = getattr(statistics, name).numpy()
        if self._health.is_on("sampler"):
            self._measure_sampler(selection, rows, seeds, logits, token_ids, values)

    def _measure_sampler(
        self,
        selection: Selection,
        kept: NDArray[np.int64],
        seeds: NDArray[np.uint64],
        logits: torch.Tensor,
        token_ids: torch.Tensor,
        values: NDArray[np.float32],
    ) -> None:
        slot = selection.slot[kept]
        reproducible = self._reproducible[slot]
        self._health.sampler_rows_skipped += int(np.count_nonzero(~reproducible))
        greedy = self._temperature[slot] < GREEDY_TEMPERATURE
        rows = np.flatnonzero(reproducible & greedy)
        if rows.size:
            pick = torch.from_numpy(rows)
            temperature = torch.from_numpy(self._temperature[slot[rows]])
            mismatch = greedy_mismatch(logits[pick], token_ids[pick], temperature)
            values[kept[rows], self._blocks["sampler.greedy_mismatch"].start] = mismatch.numpy()
        # Rows without filters need no sorting, so they are not computed together with those that do.
        for group in (self._filtered[slot], ~self._filtered[slot]):
            rows = np.flatnonzero(reproducible & ~greedy & group)
            if rows.size:
                at = kept[rows]
                v = draw(seeds[at], selection.position[at]).astype(np.float32)
                pick = torch.from_numpy(rows)
                u = pit(logits[pick], token_ids[pick], self._parameters(slot[rows]), torch.from_numpy(v))
                values[at, self._blocks["sampler.pit"].start] = u.numpy()

    def _parameters(self, slot: NDArray[np.int64]) -> SamplingParameters:
        return SamplingParameters(
            torch.from_numpy(self._temperature[slot]),
            torch.from_numpy(self._top_k[slot]),
            torch.from_numpy(self._top_p[slot]),
            torch.from_numpy(self._min_p[slot]),
            bool(self._filtered[slot].any()),
        )

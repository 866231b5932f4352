"""Raw logits, sampling parameters and delivered tokens of a step in; output and sampler signals out."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from introspan.capture.columns import Layout
from introspan.capture.health import Health
from introspan.capture.output import output_statistics
from introspan.capture.repetition import longest_period_tail
from introspan.capture.rows import Selection, draw
from introspan.capture.sampler import GREEDY_TEMPERATURE, SamplingParameters, greedy_mismatch, pit


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a request asked of the sampler; reproducible where no processor but these four applies."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    reproducible: bool


class OutputProbe:
    """Measures logits and sampler for the rows of a step."""

    def __init__(self, layout: Layout, capacity: int, health: Health) -> None:
        self._blocks = layout.blocks
        self._health = health
        self._logits: torch.Tensor | None = None
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
        """Copies the measured rows of the raw logits [requests, V] before grammar or sampler write into them."""
        self._logits = logits.index_select(0, torch.from_numpy(selection.batch)).float()

    def measure(
        self,
        selection: Selection,
        seeds: NDArray[np.uint64],
        tokens: NDArray[np.int64],
        streams: list[NDArray[np.int32]],
        values: NDArray[np.float32],
    ) -> None:
        """Writes the output and sampler signals of the step's rows into values [rows, columns].

        seeds: [rows] request hashes; tokens: [rows] delivered tokens; streams: each request's generated tokens, the
        delivered one last.
        """
        logits, self._logits = self._logits, None
        assert logits is not None
        token_ids = torch.from_numpy(tokens)
        statistics = output_statistics(logits, token_ids)
        for name in ("entropy", "margin", "logprob", "nonfinite"):
            values[:, self._blocks[f"output.{name}"].start] = getattr(statistics, name).numpy()
        values[:, self._blocks["output.repetition"].start] = [
            longest_period_tail(stream) for stream in streams
        ]
        if self._health.is_on("sampler"):
            self._measure_sampler(selection, seeds, logits, token_ids, values)

    def _measure_sampler(
        self,
        selection: Selection,
        seeds: NDArray[np.uint64],
        logits: torch.Tensor,
        token_ids: torch.Tensor,
        values: NDArray[np.float32],
    ) -> None:
        slot = selection.slot
        reproducible = self._reproducible[slot]
        self._health.sampler_rows_skipped += int(np.count_nonzero(~reproducible))
        greedy = self._temperature[slot] < GREEDY_TEMPERATURE
        rows = np.flatnonzero(reproducible & greedy)
        if rows.size:
            pick = torch.from_numpy(rows)
            temperature = torch.from_numpy(self._temperature[slot[rows]])
            mismatch = greedy_mismatch(logits[pick], token_ids[pick], temperature)
            values[rows, self._blocks["sampler.greedy_mismatch"].start] = mismatch.numpy()
        # Rows without filters need no sorting, so they are not computed together with those that do.
        filtered = self._filtered[slot]
        for group in (filtered, ~filtered):
            rows = np.flatnonzero(reproducible & ~greedy & group)
            if rows.size:
                v = draw(seeds[rows], selection.position[rows]).astype(np.float32)
                pick = torch.from_numpy(rows)
                u = pit(logits[pick], token_ids[pick], self._parameters(slot[rows]), torch.from_numpy(v))
                values[rows, self._blocks["sampler.pit"].start] = u.numpy()

    def _parameters(self, slot: NDArray[np.int64]) -> SamplingParameters:
        return SamplingParameters(
            torch.from_numpy(self._temperature[slot]),
            torch.from_numpy(self._top_k[slot]),
            torch.from_numpy(self._top_p[slot]),
            torch.from_numpy(self._min_p[slot]),
            bool(self._filtered[slot].any()),
        )

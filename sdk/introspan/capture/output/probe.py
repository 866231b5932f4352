"""Raw logits, sampling parameters and delivered tokens of a few steps in; output and sampler signals out."""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from introspan.capture.columns import Layout
from introspan.capture.health import Health
from introspan.capture.output.sampler import Sampling, greedy_mismatch, pit
from introspan.capture.output.uniform import uniform_of
from introspan.capture.output.vocabulary import Vocabulary
from introspan.capture.rows import Selection


class OutputProbe:
    """Measures logits and sampler for the rows whose attention is measured too: the last of each burst.

    A vocabulary is a hundred times wider than a stream, and these are the costliest signals on a CPU; three
    consecutive tokens say little more than one.
    """

    def __init__(self, layout: Layout, capacity: int, rows_max: int, health: Health) -> None:
        self._column = {name: block.start for name, block in layout.blocks.items()}
        self._health = health
        self._rows_max = rows_max
        self._logits = torch.empty(0, 0)
        self._vocabulary: Vocabulary | None = None
        self._rows: list[int] = []
        self._tokens: list[int] = []
        self._arriving: list[int] = []
        self._delivered: list[int] = []
        self._sampling: list[Sampling | None] = [None] * capacity

    def begin(self, slot: int, sampling: Sampling) -> None:
        """Remembers the parameters of a request that is followed from now on."""
        self._sampling[slot] = sampling

    def keep(self, selection: Selection, logits: torch.Tensor) -> None:
        """Copies the step's rows of the raw logits [requests, V] before grammar or sampler write into them."""
        rows = np.flatnonzero(selection.attention)
        self._arriving = []  # what raises below must not be taken for kept
        if not rows.size:
            return
        start, stop = len(self._rows), len(self._rows) + rows.size
        if stop > len(self._logits):
            rows_kept = max(stop, min(2 * stop, self._rows_max))
            larger = torch.empty(rows_kept, logits.shape[1], dtype=logits.dtype, device=logits.device)
            if start:
                larger[:start] = self._logits[:start]
            self._logits = larger
        index = torch.from_numpy(selection.batch[rows]).to(logits.device)
        torch.index_select(logits, 0, index, out=self._logits[start:stop])
        self._arriving = rows.tolist()

    def deliver(self, selection: Selection, before: int, tokens: Callable[[int], int]) -> None:
        """Notes the tokens that were drawn from the logits kept last; before counts the rows of earlier steps."""
        self._delivered = self._arriving
        for row in self._arriving:
            self._rows.append(before + row)
            self._tokens.append(tokens(int(selection.batch[row])))
        self._arriving = []

    def not_finite(self) -> list[int]:
        """Which rows of the step that was delivered last have a NaN or +Inf among their raw logits."""
        if not self._delivered:
            return []
        sums = self._logits[len(self._rows) - len(self._delivered) : len(self._rows)].sum(
            dim=1, dtype=torch.float32
        )
        totals = zip(self._delivered, sums.tolist(), strict=True)
        return [row for row, total in totals if math.isnan(total) or total == math.inf]

    def abandon(self) -> None:
        """Forgets the logits that were kept last, for which no tokens were delivered."""
        self._arriving, self._delivered = [], []

    def drop(self) -> None:
        """Forgets the rows that were kept."""
        self._rows, self._tokens = [], []

    def measure(self, selection: Selection, values: NDArray[np.float32]) -> None:
        """Writes the output and sampler signals of the rows that were kept into values [rows, columns].

        selection: all rows, those among them that were not kept too.
        """
        if not self._rows:
            return
        logits: NDArray[np.float32] = self._logits[: len(self._rows)].cpu().float().numpy()
        if self._vocabulary is None:
            self._vocabulary = Vocabulary(logits.shape[1])
        draws = uniform_of(selection, self._rows)
        measures_sampler, column = self._health.is_on("sampler"), self._column
        # A loop, since a row's passes are faster while it is in the core's cache than those of many rows together.
        for place, (row, token) in enumerate(zip(self._rows, self._tokens, strict=True)):
            found = self._vocabulary.statistics(logits[place], token)
            values[row, column["output.entropy"]] = found.entropy
            values[row, column["output.margin"]] = found.margin
            values[row, column["output.logprob"]] = found.logprob
            values[row, column["output.nonfinite"]] = found.nonfinite
            sampling = self._sampling[int(selection.slot[row])]
            if not measures_sampler or sampling is None:
                continue
            if not sampling.reproducible:
                self._health.sampler_rows_skipped += 1
            elif sampling.is_greedy:
                values[row, column["sampler.greedy_mismatch"]] = greedy_mismatch(logits[place], token)
            elif not math.isnan(found.entropy):
                values[row, column["sampler.pit"]] = self._pit(sampling, token, float(draws[place]))

    def _pit(self, sampling: Sampling, token: int, drawn: float) -> float:
        """U of the row whose statistics were taken last; NaN where its parameters are more than we foresaw."""
        assert self._vocabulary is not None
        try:
            return pit(self._vocabulary.weights(sampling.temperature), token, sampling, drawn)
        except Exception as error:  # noqa: BLE001 - one request's parameters must not cost the rows after it theirs
            self._health.error("sampler", error)
            return math.nan

"""What steps schedule in; which of their rows have their attention measured, and what waits of them, out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from introspan.capture.attention.groups import window_of
from introspan.capture.columns import Layout
from introspan.capture.health import Health
from introspan.capture.rows import Selection
from introspan.capture.taps.attention import AttentionTap
from introspan.capture.taps.block_table import TablesOf

FIRST_CHECKS = 8
"""Rows from the first one on whose outputs are recomputed."""

_CHECK_EVERY = 10_000


class AttentionRows(ABC):
    """What probes of attention have in common, wherever they compute: choosing rows, and keeping those that wait.

    byte_budget: of keys that are read at once.
    """

    def __init__(
        self, layout: Layout, taps: Sequence[AttentionTap], byte_budget: int, health: Health
    ) -> None:
        self._taps = taps
        self._layers = layout.attention_layers
        self._blocks = layout.blocks
        self._heads = taps[0].q.shape[1]
        impl = taps[0].point.module.impl
        self._bytes_per_key = impl.num_kv_heads * impl.head_size * taps[0].q.element_size() * len(taps)
        self._byte_budget = byte_budget
        self._health = health
        self._rows_seen = 0
        self._arriving: NDArray[np.int64] = np.zeros(0, np.int64)
        self._rows: list[int] = []
        self._slots: list[int] = []
        self._lengths: list[int] = []
        # The blocks that a window has left are given to other requests while theirs goes on.
        self.can_wait = all(window_of(tap.point.module.impl) is None for tap in taps)
        """Whether rows may be computed steps later, as long as their requests keep their blocks."""

    @property
    def needs_block_tables(self) -> bool:
        """Whether `take_block_tables` has anything to do in this step."""
        return self._arriving.size > 0 and not self._taps[0].sees_block_tables

    def is_too_much(self, selection: Selection) -> bool:
        """Whether the rows that wait must be computed before these, lest more is read at once than the budget."""
        if not self._rows:
            return False
        coming = self._within_budget(selection)
        slots = self._slots + selection.slot[coming].tolist()
        lengths = self._lengths + (selection.position[coming] + 1).tolist()
        return bool(self._keys(slots, lengths) * self._bytes_per_key > self._byte_budget)

    def select(self, selection: Selection) -> None:
        """Asks the taps for the rows of the coming forward that the byte budget allows."""
        self._arriving = self._within_budget(selection)
        skipped = np.count_nonzero(selection.attention) - self._arriving.size
        self._health.attention_rows_skipped += int(skipped)
        if not self._arriving.size:
            return
        index = torch.from_numpy(selection.token[self._arriving])
        checks = self._is_to_be_checked(self._rows_seen, self._rows_seen + self._arriving.size)
        for tap in self._taps:
            tap.select(index, len(self._rows), with_output=checks)

    def deselect(self) -> None:
        """Asks for nothing."""
        if self._arriving.size:
            self._arriving = self._arriving[:0]
            for tap in self._taps:
                tap.deselect()

    @abstractmethod
    def take_block_tables(self, tables: TablesOf) -> None:
        """Takes the step's block tables from the engine: of a graph's attention calls no tap saw them."""

    def take_in(self, selection: Selection, before: int) -> None:
        """Adds the step's rows to those that wait; before counts the rows of earlier steps."""
        rows = self._arriving
        if not rows.size or any(tap.failed for tap in self._taps):
            return
        lengths = selection.position[rows] + 1
        if not self._accept(selection.batch[rows], lengths):
            return
        self._rows += (before + rows).tolist()
        self._slots += selection.slot[rows].tolist()
        self._lengths += lengths.tolist()
        self._rows_seen += rows.size

    def drop(self) -> None:
        """Forgets the rows that wait."""
        self._rows, self._slots, self._lengths = [], [], []

    @abstractmethod
    def _accept(self, batch: NDArray[np.int64], lengths: NDArray[np.int64]) -> bool:
        """Whether the taps have the step's rows; what is needed of it beside them is kept.

        batch: of each row its request's place in the batch; lengths: its keys.
        """

    @abstractmethod
    def _keys(self, slots: list[int], lengths: list[int]) -> int:
        """How many keys are read to compute rows of requests that have these slots, and these lengths there."""

    def _is_to_be_checked(self, before: int, after: int) -> bool:
        """Whether the rows of a step are among those whose outputs are recomputed; by how many there were."""
        return before < FIRST_CHECKS or after // _CHECK_EVERY != before // _CHECK_EVERY

    def _within_budget(self, selection: Selection) -> NDArray[np.int64]:
        """Rows of a step whose keys, taken in order, the budget allows to be read."""
        rows = np.flatnonzero(selection.attention)
        return rows[np.cumsum((selection.position[rows] + 1) * self._bytes_per_key) <= self._byte_budget]

"""Requests that are sent again and again in; the same with U of a right sampler, which never repeats, out.

A simulation draws a few hundred requests thousands of times. The U of a few hundred tokens are not uniform, and the
exact null would notice; a server would have drawn new tokens.
"""

from dataclasses import replace

import numpy as np

from bench.faults.traffic import ANSWER_TOKENS
from introspan_collector.model import Batch
from introspan_wire.codec import SegmentTable
from introspan_wire.signals import Statistic


def drawn_anew(batch: Batch, rng: np.random.Generator) -> Batch:
    """The batch with new values of sampler.pit in every row."""
    return replace(batch, tables=tuple(_with_new_u(table, rng) for table in batch.tables))


def _with_new_u(table: SegmentTable, rng: np.random.Generator) -> SegmentTable:
    values = table.values.copy()
    drawn = rng.random((len(table), ANSWER_TOKENS - 1))
    for place, column in enumerate(table.schema.columns):
        if column.signal == "sampler.pit":
            values[:, place] = drawn.mean(axis=1) if column.statistic is Statistic.MEAN else drawn[:, 0]
    return replace(table, values=values)

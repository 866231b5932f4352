"""A batch in; the same as workers of an engine send it that each measure a part of the columns, a batch each, out."""

from dataclasses import replace

import numpy as np


def spread(batch, stages, ranks=1, bound=15, where="tables"):
    """As many batches as there are workers: stages one after another, tensor ranks inside a stage.

    bound: the layer at which each stage after the first begins. Of heads each rank has as many; what has none is rank
    0's, and what has no layer the last stage's, where tokens are drawn.
    """
    found = []
    for stage in range(stages):
        for rank in range(ranks):
            tables = [_part(table, stage, stages, rank, ranks, bound) for table in getattr(batch, where)]
            tables = tuple(table for table in tables if table.schema.columns)
            origin = replace(
                batch.origin,
                pipeline_parallel_rank=stage,
                tensor_parallel_rank=rank,
                pipeline_parallel_size=stages,
                tensor_parallel_size=ranks,
            )
            producer = bytes([stage, rank]) + batch.producer[2:]
            status = batch.status
            if status is not None and (stage, rank) != (stages - 1, 0):
                status = replace(status, sampler_tokens=0, sampler_low=0, sampler_high=0, sampler_sum=0.0)
            found.append(replace(batch, origin=origin, producer=producer, status=status, **{where: tables}))
    return found


def _part(table, stage, stages, rank, ranks, bound):
    columns = table.schema.columns
    heads = 1 + max((column.head for column in columns), default=-1)

    def is_own(column):
        of_stage = stages - 1 if column.layer < 0 else min(column.layer // bound, stages - 1)
        of_rank = 0 if column.head < 0 else column.head * ranks // heads
        return (of_stage, of_rank) == (stage, rank)

    mine = [i for i, column in enumerate(columns) if is_own(column)]
    schema = replace(table.schema, columns=tuple(columns[i] for i in mine))
    return replace(table, schema=schema, values=np.ascontiguousarray(table.values[:, mine]))

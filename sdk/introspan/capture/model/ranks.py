"""vLLM's parallel configuration in; which part of a model this worker holds, and what of it this worker measures, out.

A model is spread over workers in two ways. Pipeline stages hold neighbouring layers each, tensor-parallel ranks of a
stage some of the heads and some of the columns of every matrix of its layers. Each worker is a producer of its own and
measures what nobody else does, so that nothing has to be exchanged:

- the residual stream, a layer's signals and projections: tensor rank 0 of the stage that computes the layer. The stream
  behind a stage's last layer is read where the stage hands it on; as a layer's own, the next stage measures it;
- attention: each tensor rank its own heads, by their indices over the whole model;
- output, sampler and repetition: tensor rank 0 of the last stage, where tokens are drawn.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from introspan.capture.model.anatomy import SOME_STREAMS, Anatomy
from introspan.capture.model.loaded import LOADED


@dataclass(frozen=True, slots=True)
class Ranks:
    """Where a worker is among those of one engine, and its engine among the data-parallel ones."""

    tensor: int = 0
    tensor_count: int = 1
    pipeline: int = 0
    pipeline_count: int = 1
    data: int = 0
    data_count: int = 1

    @property
    def are_several(self) -> bool:
        """Whether the engine has other workers, which measure other parts of the same requests."""
        return self.tensor_count * self.pipeline_count > 1

    @property
    def measure_streams(self) -> bool:
        """Whether this worker measures the residual stream, which every tensor rank of a stage has whole."""
        return self.tensor == 0

    @property
    def measure_output(self) -> bool:
        """Whether this worker measures what is drawn, and from what."""
        return self.tensor == 0 and self.pipeline == self.pipeline_count - 1

    @property
    def batches_alternate(self) -> bool:
        """Whether steps of other requests come between those of a request: stages work on a batch each."""
        return self.pipeline_count > 1

    def heads(self, total: int) -> range:
        """The worker's attention heads, as indices over the whole model.

        Of query heads each rank has its own; key heads are there several times where they are fewer than ranks.
        """
        own = total // self.tensor_count
        return range(self.tensor * own, (self.tensor + 1) * own)

    def share(self, anatomy: Anatomy) -> Anatomy:
        """Of what a worker's part of the model offers, what this worker measures."""
        if self.measure_streams:
            return anatomy
        others = ("residual", SOME_STREAMS)
        refused = tuple(entry for entry in anatomy.refused if entry.signal not in others)
        return replace(anatomy, streams={}, refused=refused)


# Any: vLLM's ParallelConfig.
def ranks_of(parallel: Any) -> Ranks:
    """The ranks of a worker whose engine is configured so."""
    tensor_count, pipeline_count = int(parallel.tensor_parallel_size), int(parallel.pipeline_parallel_size)
    rank = int(parallel.rank)  # stages of an engine one after another, tensor ranks inside a stage
    data, data_count = _data_ranks(parallel)
    return Ranks(
        rank % tensor_count,
        tensor_count,
        rank // tensor_count % pipeline_count,
        pipeline_count,
        data,
        data_count,
    )


def changed_fingerprint(engine: str, change: int) -> str:
    """A name for weights that came from memory, the same at every rank of an engine, each of which sees a part.

    engine: what is the same in all its workers and another at each start; change: the how manieth of its weights it is.
    The same weights have another name each time: what was not compared must not pass for unchanged.
    """
    return LOADED + hashlib.sha256(f"introspan-ranks-1\0{engine}\0{change}".encode()).hexdigest()


# Any: as above.
def _data_ranks(parallel: Any) -> tuple[int, int]:
    """Rank of this engine among the data-parallel ones, and how many there are.

    vLLM tells the engine of a model without experts that it is the only one; these two fields it leaves as they were.
    """
    rank = getattr(parallel, "data_parallel_index", parallel.data_parallel_rank)
    count = getattr(parallel, "elastic_ep_max_dp_size", None) or 1
    return int(rank), max(int(parallel.data_parallel_size), int(count))

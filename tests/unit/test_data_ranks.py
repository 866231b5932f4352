"""Which of several data-parallel engines a worker belongs to, as the installed vLLM tells it."""

import pytest
from vllm.config import ParallelConfig

from introspan.capture.worker import _data_ranks


def test_one_engine_has_rank_0_of_1():
    assert _data_ranks(ParallelConfig()) == (0, 1)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_an_engine_that_is_told_it_is_the_only_one_is_still_known_by_its_rank(rank):
    config = ParallelConfig(data_parallel_size=3)
    config.data_parallel_index = rank  # as vLLM's engine process begins, before it does the following
    config.reconfigure_for_independent_dp_rank()
    assert (config.data_parallel_rank, config.data_parallel_size) == (0, 1)
    assert _data_ranks(config) == (rank, 3)


def test_an_engine_of_experts_is_told_how_many_there_are():
    assert _data_ranks(ParallelConfig(data_parallel_size=2, data_parallel_rank=1)) == (1, 2)

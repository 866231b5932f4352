"""Which worker of several measures what of a model: every column once, none twice."""

import itertools
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from vllm.config import ParallelConfig
from vllm.model_executor.models.utils import PPMissingLayer

from introspan.capture.columns import lay_out
from introspan.capture.model.anatomy import Form, survey
from introspan.capture.model.ranks import Ranks, changed_fingerprint, ranks_of
from introspan.capture.worker import choose
from introspan.config import Settings
from introspan.layers import LayerSpec

LAYERS, HEADS, D = 7, 8, 16
ALL = Settings(
    layers=LayerSpec.parse("INTROSPAN_LAYERS", "all"),
    attention_layers=LayerSpec.parse("INTROSPAN_ATTENTION_LAYERS", "all"),
)


class CPUAttentionBackendImpl:
    kv_cache_dtype, attn_type = "auto", "decoder"


class Attention(nn.Module):
    layer_name = "model.layers.0.self_attn.attn"

    def __init__(self):
        super().__init__()
        self.impl, self.kv_cache = CPUAttentionBackendImpl(), None


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.input_layernorm = nn.LayerNorm(D)
        self.attn = Attention()


class Stage(nn.Module):
    """As vLLM builds a pipeline stage: what others hold is missing, with its place kept."""

    def __init__(self, held, is_last):
        super().__init__()
        self.layers = nn.ModuleList(Layer() if i in held else PPMissingLayer() for i in range(LAYERS))
        self.norm = nn.LayerNorm(D) if is_last else PPMissingLayer()

    def forward(self, tensors):
        return SimpleNamespace(tensors=tensors)


def stages(count):
    """The first stages have the layers that are over, so that they differ in length."""
    bounds = [round(i * LAYERS / count + 0.4) for i in range(count)] + [LAYERS]
    return [Stage(range(a, b), b == LAYERS) for a, b in itertools.pairwise(bounds)]


def layouts(settings, tensor_count, pipeline_count):
    for pipeline, stage in enumerate(stages(pipeline_count)):
        for tensor in range(tensor_count):
            ranks = Ranks(tensor, tensor_count, pipeline, pipeline_count)
            anatomy = ranks.share(survey(stage, LAYERS))
            assert anatomy.refused == ()
            depths = choose(settings, anatomy)
            yield lay_out(
                depths.residual,
                depths.projection,
                depths.attention,
                ranks.heads(HEADS),
                with_output=ranks.measure_output,
            )


def test_one_engine_is_the_only_one():
    ranks = ranks_of(ParallelConfig())
    assert ranks == Ranks()
    assert not ranks.are_several
    assert (ranks.measure_streams, ranks.measure_output) == (True, True)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_an_engine_that_is_told_it_is_the_only_one_is_still_known_by_its_rank(rank):
    config = ParallelConfig(data_parallel_size=3)
    config.data_parallel_index = rank  # as vLLM's engine process begins, before it does the following
    config.reconfigure_for_independent_dp_rank()
    assert (config.data_parallel_rank, config.data_parallel_size) == (0, 1)
    assert ranks_of(config) == Ranks(data=rank, data_count=3)


def test_an_engine_of_experts_is_told_how_many_there_are():
    config = ParallelConfig(data_parallel_size=2, data_parallel_rank=1)
    assert ranks_of(config) == Ranks(data=1, data_count=2)


def test_ranks_are_numbered_as_the_engine_lays_out_its_groups():
    # As vLLM's initialize_model_parallel: tensor ranks are neighbours, then come stages.
    world = torch.arange(6).reshape(3, 2)
    config = ParallelConfig(tensor_parallel_size=2, pipeline_parallel_size=3)
    for rank in range(6):
        config.rank = rank
        found = ranks_of(config)
        assert int(world[found.pipeline, found.tensor]) == rank
        assert found.are_several
        assert found.measure_output == (rank == 4)  # where vLLM's executor takes tokens from


@pytest.mark.parametrize("tensor_count", [1, 2, 4, 8])
@pytest.mark.parametrize("pipeline_count", [1, 2, 3, 7])
@pytest.mark.parametrize("settings", [ALL, Settings()], ids=["all", "defaults"])
def test_every_column_is_one_workers_and_no_others(settings, tensor_count, pipeline_count):
    (whole,) = layouts(settings, 1, 1)
    found = Counter(
        column for one in layouts(settings, tensor_count, pipeline_count) for column in one.columns
    )
    assert set(found) == set(whole.columns)
    assert set(found.values()) == {1}


def test_a_stage_reads_what_it_hands_on_behind_its_last_layer_and_the_next_one_measures_it():
    first, second = (survey(stage, LAYERS) for stage in stages(2))
    assert list(first.streams) == [0, 1, 2, 3, 4]
    assert list(second.streams) == [4, 5, 6, 7]
    assert first.streams[4].form is Form.HANDED_ON
    assert (first.owns(4), second.owns(4)) == (False, True)
    assert (list(first.attention), list(second.attention)) == ([0, 1, 2, 3], [4, 5, 6])


def test_weights_from_memory_have_one_name_at_every_rank_and_another_after_each_change():
    names = {changed_fingerprint(engine, change) for engine in ("a", "b") for change in (1, 2)}
    assert len(names) == 4
    assert changed_fingerprint("a", 1) in names

"""Runners that replay their forwards: block tables reach attention from what the runner keeps of the step."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vllm.v1.worker.block_table import MultiGroupBlockTable
from vllm.v1.worker.gpu.block_table import BlockTables as SecondTables

from introspan.capture.attention.probe import AttentionProbe
from introspan.capture.columns import lay_out
from introspan.capture.health import Health
from introspan.capture.model.anatomy import AttentionPoint
from introspan.capture.output.sampler import Sampling
from introspan.capture.rows import Table
from introspan.capture.runner.block_tables import RunnerTables, of_first, of_second
from introspan.capture.runner.late_v1_runner import LateV1Runner
from introspan.capture.runner.v2_runner import V2Runner
from introspan.capture.step.ending import Ending
from introspan.capture.step.late_recorder import LateRecorder
from introspan.capture.step.probes import Probes
from introspan.capture.step.sinks import Sinks
from introspan.capture.taps.attention import tap_attention
from introspan.capture.taps.block_table import BlockTable, NoBlockTableError
from introspan.observation import Request
from tests.graphs import Graph

_NAMES = ("another", "model.layers.0.attn")
LAYER, HEADS, D, BLOCK, ROWS_MAX, LAST = 0, 2, 16, 16, 52, 40


@pytest.fixture(autouse=True)
def _without_pinned_memory(monkeypatch):
    monkeypatch.setattr("vllm.v1.worker.gpu.buffer_utils.is_uva_available", lambda: False)


class Tables(SecondTables):
    """vLLM's own, whose two kernels are played here."""

    def apply_staged_writes(self) -> None:
        for table in self.block_tables:
            cuts = [0, *table._staged_write_cu_lens]
            for n, (row, start) in enumerate(
                zip(table._staged_write_indices, table._staged_write_starts, strict=True)
            ):
                ids = table._staged_write_contents[cuts[n] : cuts[n + 1]]
                table.gpu[row, start : start + len(ids)] = torch.tensor(ids, dtype=torch.int32)
            table.clear_staged_writes()

    def gather_block_tables(self, idx_mapping: torch.Tensor, num_reqs_padded: int) -> None:
        for into, table in zip(self.input_block_tables, self.block_tables, strict=True):
            into[:num_reqs_padded] = 0
            into[: len(idx_mapping)] = table.gpu[idx_mapping]


GROUPS = [SimpleNamespace(layer_names=["another"]), SimpleNamespace(layer_names=["model.layers.0.attn"])]
NOTHING = SimpleNamespace(
    finished_req_ids=set(),
    preempted_req_ids=set(),
    num_scheduled_tokens={"a": 1},
    scheduled_new_reqs=[],
    scheduled_cached_reqs=SimpleNamespace(resumed_req_ids=set()),
)


class Second:
    """As much of a V2 runner as the adapter touches; whoever has it runs the forward between its calls."""

    adapter = V2Runner

    def __init__(self) -> None:
        self.model, self.req_states = torch.nn.Identity(), SimpleNamespace(req_id_to_index={"a": 3})
        self.max_model_len = 64
        self.kv_cache_config = SimpleNamespace(kv_cache_groups=GROUPS)
        self.block_tables = Tables([2 * BLOCK, BLOCK], 4, 64, [4, 4], torch.device("cpu"))

    def finish_requests(self, scheduled):
        pass

    def add_requests(self, scheduled):
        pass

    def prepare_inputs(self, length: int):
        return SimpleNamespace(
            req_ids=["a"],
            num_reqs=1,
            num_computed_tokens_np=np.array([length - 1]),
            query_start_loc_np=np.array([0, 1]),
        )

    def sample(self):
        return (SimpleNamespace(sampled_token_ids=torch.tensor([[1]])),)

    def sample_tokens(self):
        self.sample()
        return SimpleNamespace(sampled_token_ids=[[1]])

    def step(self, length: int, blocks: list[int], forward: Callable[[], None]) -> None:
        self.finish_requests(NOTHING)
        self.add_requests(NOTHING)
        self.block_tables.append_block_ids(3, ([7], blocks), overwrite=True)
        self.block_tables.apply_staged_writes()
        self.prepare_inputs(length)
        self.block_tables.gather_block_tables(torch.tensor([3]), 2)
        forward()
        self.sample_tokens()


class First:
    """The same of a V1 runner."""

    adapter = LateV1Runner

    def __init__(self) -> None:
        self.requests, self.max_model_len, self.execute_model_state = {"a": None}, 64, None
        self.kv_cache_config = SimpleNamespace(kv_cache_groups=GROUPS)
        tables = MultiGroupBlockTable(
            max_num_reqs=4,
            max_num_batched_tokens=64,
            pin_memory=False,
            device=torch.device("cpu"),
            block_sizes=[2 * BLOCK, BLOCK],
            max_num_blocks=[4, 4],
        )
        self.input_batch = SimpleNamespace(
            req_ids=["a"],
            num_reqs=1,
            num_computed_tokens_cpu=np.zeros(1, np.int64),
            prev_sampled_token_ids=torch.tensor([[1]]),
            block_table=tables,
        )

    def _update_states(self, scheduled):
        pass

    def _prepare_inputs(self, scheduled):
        pass

    def sample_tokens(self):
        return SimpleNamespace(sampled_token_ids=[[1]])

    def step(self, length: int, blocks: list[int], forward: Callable[[], None]) -> None:
        self._update_states(NOTHING)
        self.input_batch.num_computed_tokens_cpu[0] = length - 1
        self.input_batch.block_table.add_row(([7], blocks), 0)
        self.input_batch.block_table.commit_block_table(1)
        self._prepare_inputs(NOTHING)
        forward()
        self.sample_tokens()


class Served:
    """One request in a runner that is followed, whose attention is called by Python or replayed."""

    def __init__(self, runner: First | Second, *, is_replayed: bool) -> None:
        generator = torch.Generator().manual_seed(4)
        impl = SimpleNamespace(
            num_heads=HEADS,
            num_kv_heads=HEADS,
            head_size=D,
            scale=0.25,
            sliding_window=-1,
            logits_soft_cap=0.0,
            alibi_slopes=None,
            sinks=None,
            forward=lambda *_, output: output,
        )
        cache = torch.randn(8, HEADS, BLOCK, 2 * D, generator=generator)
        module = SimpleNamespace(impl=impl, kv_cache=cache, isa="vec", layer_name="model.layers.0.attn")
        self.forward = impl
        self.health, self.values = Health(), []
        taps = tap_attention(
            [AttentionPoint(LAYER, module)],
            ROWS_MAX,
            torch.float32,
            torch.device("cpu"),
            self.health,
            static=is_replayed,
        )
        layout = lay_out((), (), (LAYER,), range(HEADS), with_output=False)
        probe = AttentionProbe(layout, taps, 2**20, self.health)
        probe._rows_seen = 8  # those whose outputs would be checked
        sinks = Sinks(lambda rows: self.values.append(rows.values), lambda _: None, lambda *_: None)
        self.recorder = LateRecorder(
            layout, Table(2, 1), Probes(None, probe, None), self.health, sinks, ROWS_MAX, 2, 2, lambda: 0.0
        )
        self.runner = runner
        runner.adapter(runner, self.recorder, self.health, lambda _: None)
        request = Request("a", "a", bytes(16), bytes(8), 0, "", 20, 0, 1.0, 1)
        sampling = Sampling(1.0, 0, 1.0, 0.0, reproducible=True)
        self.recorder.begin_ending(request, sampling, Ending(frozenset(), LAST))
        self.query, self.graph = torch.zeros(2, 1, HEADS, D), None
        if is_replayed:
            self.graph = Graph()
            with self.graph:
                impl.forward(None, self.query[0], None, None, None, None, output=self.query[1])

    @torch.inference_mode()
    def step(self, length: int) -> None:
        generator = torch.Generator().manual_seed(length)
        table = torch.randperm(8, generator=generator)[:4].view(1, 4).int()
        self.query[0] = torch.randn(1, HEADS, D, generator=generator)
        metadata = SimpleNamespace(block_table=table)

        def forward() -> None:
            if self.graph is None:
                self.forward.forward(None, self.query[0], None, None, None, metadata, output=self.query[1])
            else:
                self.graph.replay()

        self.runner.step(length, table[0].tolist(), forward)


@pytest.mark.parametrize("runner", [First, Second])
def test_attention_of_a_replayed_step_is_read_by_the_block_table_that_the_runner_keeps(runner):
    run, replayed = Served(runner(), is_replayed=False), Served(runner(), is_replayed=True)
    for served in (run, replayed):
        for length in range(20, 30):
            served.step(length)
        served.recorder.leave()
        assert not served.health.errors
        assert not served.health.disabled
    values = np.concatenate(replayed.values)
    assert len(values) > 5
    assert np.isfinite(values).all()
    np.testing.assert_array_equal(values, np.concatenate(run.values))


@pytest.mark.parametrize(("runner", "of_group"), [(First, of_first), (Second, of_second)])
def test_the_table_of_a_layer_is_that_of_its_group(runner, of_group):
    made = runner()
    tables = RunnerTables(made, of_group)
    found: list[tuple[list[int], list[int]]] = []

    def look() -> None:
        found.extend((tables(name).ids[0, :2].tolist(), tables(name).block_size) for name in _NAMES)

    made.step(20, [5, 2, 3], look)
    assert found == [([7, 0], 2 * BLOCK), ([5, 2], BLOCK)]
    first, second = (tables("another").ids.data_ptr() for _ in range(2))
    assert first == second, "layers of a group are computed together"
    with pytest.raises(NoBlockTableError, match=r"model\.layers\.9\.attn is in no group"):
        tables("model.layers.9.attn")
    made.kv_cache_config = SimpleNamespace(kv_cache_groups=GROUPS[::-1])  # after it was tried how much fits
    assert tables("another").block_size == BLOCK


def test_a_v2_runner_that_divides_its_blocks_itself_says_so():
    """As those of 0.23 to 0.28: what is in its tables is as kernels want it, not as blocks are given out."""
    made = Second()
    made.block_tables.kernel_block_sizes = [BLOCK, BLOCK // 2]
    assert [of_second(made, group).block_size for group in range(2)] == [BLOCK, BLOCK // 2]


def test_ids_of_larger_blocks_become_those_of_the_blocks_of_a_cache():
    table = BlockTable(torch.tensor([[3, 0], [1, 2]], dtype=torch.int32), 48)
    assert table.divided(16).tolist() == [[9, 10, 11, 0, 1, 2], [3, 4, 5, 6, 7, 8]]
    assert table.divided(48) is table.ids
    for block_size in (32, 96):
        with pytest.raises(NoBlockTableError, match=f"48 keys, a block of the cache holds {block_size}"):
            table.divided(block_size)

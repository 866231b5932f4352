"""A V2 runner that replays its forwards: block tables reach attention from what the runner keeps of the step."""

from types import SimpleNamespace

import numpy as np
import torch

from introspan.capture.attention.probe import AttentionProbe
from introspan.capture.columns import lay_out
from introspan.capture.health import Health
from introspan.capture.model.anatomy import AttentionPoint
from introspan.capture.output.sampler import Sampling
from introspan.capture.rows import Table
from introspan.capture.runner.v2_runner import V2Runner
from introspan.capture.step.ending import Ending
from introspan.capture.step.late_recorder import LateRecorder
from introspan.capture.step.probes import Probes
from introspan.capture.step.sinks import Sinks
from introspan.capture.taps.attention import tap_attention
from introspan.observation import Request
from tests.graphs import Graph

LAYER, HEADS, D, BLOCK, ROWS_MAX, LAST = 0, 2, 16, 16, 52, 40


class Runner:
    """As much of a V2 runner as the adapter touches; whoever has it runs the forward between its calls."""

    def __init__(self) -> None:
        self.model, self.req_states = torch.nn.Identity(), SimpleNamespace(req_id_to_index={"a": 0})
        self.max_model_len = 64
        groups = [
            SimpleNamespace(layer_names=["another"]),
            SimpleNamespace(layer_names=["model.layers.0.attn"]),
        ]
        self.kv_cache_config = SimpleNamespace(kv_cache_groups=groups)
        # As vLLM has them: for the most requests that may come, where graphs look for them.
        tables = [torch.zeros(ROWS_MAX, 4, dtype=torch.int32) for _ in groups]
        self.block_tables = SimpleNamespace(input_block_tables=tables, block_sizes=[BLOCK, BLOCK])

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


class Served:
    """One request in a runner that is followed, whose attention is called by Python or replayed."""

    def __init__(self, *, is_replayed: bool) -> None:
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
        self.runner = Runner()
        V2Runner(self.runner, self.recorder, self.health, lambda _: None)
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
        nothing = SimpleNamespace(
            finished_req_ids=set(),
            preempted_req_ids=set(),
            num_scheduled_tokens={"a": 1},
            scheduled_new_reqs=[],
        )
        runner = self.runner
        runner.finish_requests(nothing)
        runner.add_requests(nothing)
        runner.prepare_inputs(length)
        runner.block_tables.input_block_tables[1][:1] = table
        if self.graph is None:
            self.forward.forward(None, self.query[0], None, None, None, metadata, output=self.query[1])
        else:
            self.graph.replay()
        runner.sample_tokens()


def test_attention_of_a_replayed_step_is_read_by_the_block_table_that_the_runner_keeps():
    run, replayed = Served(is_replayed=False), Served(is_replayed=True)
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

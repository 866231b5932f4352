"""The attention probe over the steps of two layers with a paged cache: which rows it measures, and when."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from introspan.capture.attention.probe import AttentionProbe
from introspan.capture.columns import lay_out
from introspan.capture.health import Health
from introspan.capture.model.anatomy import AttentionPoint
from introspan.capture.rows import Selection
from introspan.capture.taps.attention import AttentionTap, tap_attention
from introspan.capture.taps.block_table import BlockTable
from introspan.observation import Request
from tests.graphs import Graph

LAYERS, HEADS, KV_HEADS, D, BLOCK, BLOCKS = (3, 4), 4, 2, 16, 16, 4
BYTES_PER_KEY = len(LAYERS) * KV_HEADS * D * 4
ROWS = lay_out((), (), LAYERS, range(HEADS))


class Served:
    """A model whose requests have their keys and values in BLOCKS blocks each, and the probe that measures it."""

    def __init__(self, requests: int, budget_bytes: int = 2**20, *, wrong_output: bool = False) -> None:
        generator = torch.Generator().manual_seed(0)
        self.wrong_output = wrong_output
        self.table = torch.randperm(requests * BLOCKS, generator=generator).view(requests, BLOCKS).int()
        self.keys_values = torch.randn(
            len(LAYERS), 2, requests, KV_HEADS, BLOCKS * BLOCK, D, generator=generator
        )
        self.health = Health()
        points = [self._point(layer, kv) for layer, kv in zip(LAYERS, self.keys_values, strict=True)]
        self.taps = self._tapped(points)
        self.probe = AttentionProbe(ROWS, self.taps, budget_bytes, self.health)
        self.rows = 0

    def _tapped(self, points: list[AttentionPoint]) -> list[AttentionTap]:
        return tap_attention(points, 64, torch.float32, torch.device("cpu"), self.health)

    def _point(self, layer: int, keys_values: torch.Tensor) -> AttentionPoint:
        cache = torch.full((self.table.numel(), KV_HEADS, BLOCK, 2 * D), math.nan)
        k, v = keys_values.unflatten(3, (BLOCKS, BLOCK)).transpose(2, 3).flatten(1, 2)
        halves = cache.view(*cache.shape[:2], 2, BLOCK * D)
        halves[self.table.flatten().long(), :, 0] = k.transpose(-1, -2).flatten(2)
        halves[self.table.flatten().long(), :, 1] = v.flatten(2)
        impl = SimpleNamespace(
            num_heads=HEADS,
            num_kv_heads=KV_HEADS,
            head_size=D,
            scale=0.25,
            sliding_window=-1,
            logits_soft_cap=0.0,
            alibi_slopes=None,
            sinks=None,
            forward=lambda *_, output: output,
        )
        return AttentionPoint(
            layer, SimpleNamespace(impl=impl, kv_cache=cache, isa="vec", layer_name=f"layer {layer}")
        )

    def step(self, batch: list[int], lengths: list[int]) -> Selection:
        """One forward in which these requests come to have that many keys; every row is asked for."""
        selection = _selection(batch, lengths)
        self.probe.select(selection)
        queries, outputs = [], []
        for at in range(len(self.taps)):
            seed = [1000 * at + 100 * request + n for request, n in zip(batch, lengths, strict=True)]
            q = torch.stack([torch.randn(HEADS, D, generator=torch.Generator().manual_seed(s)) for s in seed])
            queries.append(q)
            outputs.append(torch.zeros_like(q) if self.wrong_output else self._attend(at, q, batch, lengths))
        metadata = SimpleNamespace(block_table=self.table[torch.tensor(batch)])
        self._forward(torch.stack(queries), torch.stack(outputs), metadata)
        self.probe.take_in(selection, self.rows)
        self.probe.deselect()
        self.rows += len(batch)
        return selection

    def _forward(self, queries: torch.Tensor, outputs: torch.Tensor, metadata: object) -> None:
        for tap, q, output in zip(self.taps, queries, outputs, strict=True):
            tap.point.module.impl.forward(None, q.flatten(1), None, None, None, metadata, output=output)

    def _attend(self, at: int, q: torch.Tensor, batch: list[int], lengths: list[int]) -> torch.Tensor:
        outputs = []
        for row, request, n in zip(q, batch, lengths, strict=True):
            k, v = self.keys_values[at, :, request, :, :n].repeat_interleave(HEADS // KV_HEADS, dim=1)
            outputs.append(((k @ row.unsqueeze(-1)).squeeze(-1) * 0.25).softmax(-1).unsqueeze(1) @ v)
        return torch.stack(outputs).squeeze(2)

    def measured(self) -> np.ndarray:
        """Attention values of the rows since the last call."""
        values = np.full((self.rows, len(ROWS.columns)), np.nan, np.float32)
        self.probe.measure(values)
        self.probe.drop()
        self.rows = 0
        blocks = [ROWS.blocks[f"attention.{name}"] for name in ("entropy", "sink_mass", "recent_mass")]
        return values[:, blocks[0].start : blocks[-1].stop]


class Replayed(Served):
    """The same, of whose attention calls no Python is run: a graph of them is replayed, over PADDED tokens."""

    PADDED = 4

    def __init__(self, *args: int, **kwargs: bool) -> None:
        super().__init__(*args, **kwargs)
        self._memory = torch.zeros(2, len(LAYERS), self.PADDED, HEADS, D)
        self.graph = Graph()
        with self.graph:
            super()._forward(*self._memory, None)

    def _tapped(self, points: list[AttentionPoint]) -> list[AttentionTap]:
        return tap_attention(points, 64, torch.float32, torch.device("cpu"), self.health, static=True)

    def _forward(self, queries: torch.Tensor, outputs: torch.Tensor, metadata: object) -> None:
        for memory, new in zip(self._memory, (queries, outputs), strict=True):
            memory[:, : new.shape[1]] = new
        self.graph.replay()
        tables = {tap.point.module.layer_name: BlockTable(metadata.block_table, BLOCK) for tap in self.taps}
        self.probe.take_block_tables(tables.__getitem__)


def _selection(batch: list[int], lengths: list[int]) -> Selection:
    count = len(batch)
    return Selection(
        requests=[Request(str(i), "", b"", b"", 0, "", 1, 0, 1.0, i) for i in batch],
        slot=np.array(batch) + 5,
        token=np.arange(count),
        batch=np.arange(count),
        position=np.array(lengths) - 1,
        burst=np.zeros(count, np.int64),
        attention=np.ones(count, np.bool_),
    )


STEPS = [([0, 1], [15, 40]), ([1, 0], [41, 16]), ([0], [17]), ([2, 0, 1], [1, 18, 42])]


BOTH = pytest.mark.parametrize("served_by", [Served, Replayed])


@BOTH
def test_rows_of_several_steps_have_the_values_of_each_step_alone(served_by):
    together, alone = served_by(3), Served(3)
    expected = []
    for batch, lengths in STEPS:
        together.step(batch, lengths)
        alone.step(batch, lengths)
        expected.append(alone.measured())
    assert not together.health.disabled
    found = together.measured()
    assert not np.isnan(found).any()
    np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-5)


def test_keys_count_once_a_request_against_the_budget():
    served = Served(3, budget_bytes=(40 + 18) * BYTES_PER_KEY)
    served.step([0, 1], [16, 38])
    for n in (17, 18):  # 56 and 58 keys to read, of as many as 162 that the rows see
        selection = _selection([0, 1], [n, 22 + n])
        assert not served.probe.is_too_much(selection)
        served.step([0, 1], [n, 22 + n])
    assert served.probe.is_too_much(_selection([0], [19]))
    assert served.probe.is_too_much(_selection([2], [1]))


@BOTH
def test_rows_beyond_the_budget_are_counted_and_not_measured(served_by):
    served = served_by(3, budget_bytes=60 * BYTES_PER_KEY)
    served.step([0, 1, 2], [30, 30, 1])
    assert served.health.attention_rows_skipped == 1
    assert np.isnan(served.measured()).all(axis=1).tolist() == [False, False, True]


@BOTH
@pytest.mark.parametrize("wrong_output", [False, True])
def test_outputs_that_do_not_follow_from_the_keys_switch_attention_off(wrong_output, served_by):
    served = served_by(2, wrong_output=wrong_output)
    served.step([0, 1], [20, 30])
    assert [entry.reason for entry in served.health.disabled.values()] == ["self_check_failed"] * wrong_output


@BOTH
def test_the_first_eight_rows_are_checked_and_then_one_in_ten_thousand(served_by):
    served = served_by(2)
    for n in range(20, 24):
        served.step([0, 1], [n, n])
    served.wrong_output = True
    served.step([0, 1], [24, 24])
    assert not served.health.disabled, "rows nine and ten are not checked"
    served.probe._rows_seen = 9_998
    served.step([0, 1], [25, 25])
    assert [entry.reason for entry in served.health.disabled.values()] == ["self_check_failed"]


def test_a_layer_whose_attention_did_not_pass_its_tap_switches_attention_off():
    served = Served(2)
    served.probe.select(_selection([0], [20]))
    first, _ = served.taps
    q = torch.zeros(1, HEADS * D)
    metadata = SimpleNamespace(block_table=served.table[:1])
    first.point.module.impl.forward(None, q, None, None, None, metadata, output=torch.zeros(1, HEADS, D))
    served.probe.take_in(_selection([0], [20]), 0)
    (entry,) = served.health.disabled.values()
    assert (entry.signal, entry.reason) == ("attention", "tap_silent")
    assert "layers [4]" in entry.detail


@pytest.mark.parametrize("checked", [True, False])
def test_a_layer_whose_attention_is_not_in_the_graph_switches_attention_off(checked):
    served = Replayed(2)
    if not checked:
        for n in range(20, 24):
            served.step([0, 1], [n, n])
        assert not np.isnan(served.measured()).any()
    missing = served.taps[1].static.buffers[1].fired
    served.graph.kernels = [
        kernel for kernel in served.graph.kernels if not any(arg is missing for arg in kernel.reads)
    ]
    served.step([0, 1], [24, 24])
    # Nothing waits for the device but a step whose outputs are checked.
    assert bool(served.health.disabled) == checked
    assert np.isnan(served.measured()).all()
    (entry,) = served.health.disabled.values()
    assert (entry.signal, entry.reason) == ("attention", "tap_silent")
    assert "layers [4]" in entry.detail

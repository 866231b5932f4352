"""A worker that measures a part of each request: it follows every step, and keeps what only it can know."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from introspan.capture.columns import lay_out
from introspan.capture.health import Health
from introspan.capture.model.anatomy import Form, StreamPoint
from introspan.capture.output.sampler import Sampling
from introspan.capture.rows import Selection, Table
from introspan.capture.runner.v1_runner import V1Runner
from introspan.capture.step.probes import Probes
from introspan.capture.step.recorder import Recorder
from introspan.capture.step.sinks import Sinks
from introspan.capture.stream.canary import CanaryProbe
from introspan.capture.stream.probe import StreamProbe
from introspan.capture.taps.streams import Taps
from introspan.observation import Request

D, ROWS_MAX = 64, 64


def request(key, *, is_canary=False):
    return Request(key, key, bytes(16), bytes(8), 0, "", 1, 0, 1.0, 1, is_canary=is_canary)


class Stage:
    """The first of two pipeline stages, with two layers; tokens are drawn elsewhere."""

    def __init__(self):
        self.layers = [nn.Identity() for _ in range(2)]
        self.model = nn.Identity()
        points = [StreamPoint(i, layer, Form.LAYER_INPUT) for i, layer in enumerate(self.layers)]
        points.append(StreamPoint(2, self.model, Form.HANDED_ON))
        self.health, self.handed_on, self.canaries = Health(), [], []
        taps = Taps(points, ROWS_MAX, D, torch.float32, torch.device("cpu"), self.health)
        self.layout = lay_out((0, 1), (1,), (), range(0), with_output=False)
        probes = Probes(StreamProbe(self.layout, taps, 8, D), None, None, CanaryProbe(taps, D))
        sinks = Sinks(self.handed_on.append, self.canaries.extend, lambda *_: None)
        self.recorder = Recorder(
            self.layout, Table(8, 1), probes, self.health, sinks, ROWS_MAX, clock=lambda: 0.0
        )

    def step(self, keys, position, streams, residual=None):
        """streams: [3, requests, D], the last of them as the stage hands it on; residual: in two parts."""
        ones = np.ones(len(keys), np.int64)
        self.recorder.begin_step(keys, ones * position, ones)
        for layer, stream in zip(self.layers, streams, strict=False):
            layer(stream)
        parts = {"hidden_states": streams[2]}
        if residual is not None:
            parts = {"hidden_states": streams[2] - residual, "residual": residual}
        self.model(SimpleNamespace(tensors=parts))
        assert not self.recorder.keeps_logits
        if self.recorder.has_rows:
            # Neither may be asked for: this worker has no tokens.
            self.recorder.after_sampling(None, None)


def streams(position, requests):
    generator = torch.Generator().manual_seed(position)
    return torch.randn(3, requests, D, generator=generator).cumsum(dim=0)


@pytest.mark.parametrize("in_two_parts", [True, False])
def test_the_last_layers_signals_are_of_the_stream_that_is_handed_on(in_two_parts):
    stage = Stage()
    stage.recorder.begin(request("a"), Sampling(1.0, 0, 1.0, 0.0, reproducible=True))
    for position in range(4):
        of_step = streams(position, 1)
        residual = torch.ones(1, D) if in_two_parts else None
        stage.step(["a"], position, of_step, residual)
    stage.recorder.flush()
    values = np.concatenate([rows.values for rows in stage.handed_on])
    ratio = values[:, stage.layout.blocks["residual.update_ratio"]]
    for position in range(4):
        h = streams(position, 1)[:, 0].double().numpy()
        expected = [np.linalg.norm(h[i + 1] - h[i]) / np.linalg.norm(h[i]) for i in range(2)]
        assert ratio[position] == pytest.approx(expected, rel=1e-4)
    assert not stage.health.errors
    assert not stage.health.disabled


def test_rows_of_several_steps_wait_for_one_another_as_they_do_elsewhere():
    stage = Stage()
    stage.recorder.begin(request("a"), Sampling(1.0, 0, 1.0, 0.0, reproducible=True))
    for position in range(6):
        stage.step(["a"], position, streams(position, 1))
    assert [rows.position.tolist() for rows in stage.handed_on] == [[0]], "the first step is checked at once"
    stage.recorder.flush()
    assert stage.handed_on[1].position.tolist() == [1, 2, 3, 4, 5]


def test_where_there_are_no_streams_rows_wait_for_one_another_too():
    layout, handed_on = lay_out((), (), (), range(0), with_output=False), []
    sinks = Sinks(handed_on.append, handed_on.append, lambda *_: None)
    probes = Probes(None, None, None)
    recorder = Recorder(layout, Table(8, 1), probes, Health(), sinks, ROWS_MAX, clock=lambda: 0.0)
    recorder.begin(request("a"), Sampling(1.0, 0, 1.0, 0.0, reproducible=True))
    for position in range(6):
        recorder.begin_step(["a"], np.array([position]), np.array([1]))
        recorder.after_sampling(None, None)
    assert handed_on == []
    recorder.flush()
    assert [rows.position.tolist() for rows in handed_on] == [[0, 1, 2, 3, 4, 5]]


def test_a_step_of_which_a_worker_hears_no_more_before_it_ends_is_counted():
    stage = Stage()
    stage.recorder.begin(request("a"), Sampling(1.0, 0, 1.0, 0.0, reproducible=True))
    for position in range(3):
        stage.step(["a"], position, streams(position, 1))
    stage.recorder.begin_step(["a"], np.array([3]), np.array([1]))
    stage.recorder.close()
    assert np.concatenate([rows.position for rows in stage.handed_on]).tolist() == [0, 1, 2]
    assert stage.health.dropped_rows == {"step_cut_short": 1}


def test_of_a_canary_a_stage_sends_its_own_layers():
    stage = Stage()
    stage.recorder.begin(request("a", is_canary=True), Sampling(0.0, 0, 1.0, 0.0, reproducible=True))
    stage.step(["a"], 0, streams(0, 1))
    (found,) = stage.canaries
    assert {column.layer for column in found.schema.columns} == {0, 1}
    assert len(found.values) == len(found.schema.columns) == 2 * 34


class Waiting:
    """A recorder with rows of some requests."""

    def __init__(self, keys):
        self.keys, self.flushed = set(keys), 0

    def must_flush(self, scheduled):
        return not self.keys <= set(scheduled)

    def flush(self):
        self.flushed += 1

    def finish(self, _key):
        pass


@pytest.mark.parametrize(
    ("alternate", "step", "flushed"),
    [
        (False, {"scheduled": ["b"]}, 1),
        (True, {"scheduled": ["b"]}, 0),
        (True, {"scheduled": ["b"], "preempted": {"a"}}, 1),
        (True, {"scheduled": ["b"], "finished": {"a"}}, 1),
        (True, {"scheduled": ["b"], "finished": {"b"}}, 0),
    ],
)
def test_where_batches_alternate_rows_wait_until_a_request_loses_its_blocks(alternate, step, flushed):
    names = ("_update_states", "_prepare_inputs", "sample_tokens")
    runner = SimpleNamespace(
        requests={"a": None, "b": None}, **{name: lambda *_, **__: None for name in names}
    )
    recorder = Waiting(["a"])
    V1Runner(runner, recorder, Health(), lambda new: new, batches_alternate=alternate)
    runner._update_states(
        SimpleNamespace(
            finished_req_ids=step.get("finished", set()),
            preempted_req_ids=step.get("preempted"),
            scheduled_new_reqs=[],
            num_scheduled_tokens=dict.fromkeys(step["scheduled"], 1),
        )
    )
    assert recorder.flushed == flushed


def test_a_selection_has_the_same_rows_whatever_the_worker_measures():
    selected = []
    for _ in range(2):
        table = Table(8, 24)
        table.begin(request("a"))
        found = [table.select(["a"], np.array([position]), np.array([1])) for position in range(60)]
        selected.append([one.position.tolist() for one in found if isinstance(one, Selection)])
    assert selected[0] == selected[1] != []

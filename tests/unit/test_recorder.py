"""When rows that wait are computed and handed on."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from introspan.capture.anatomy import Form, StreamPoint
from introspan.capture.columns import lay_out
from introspan.capture.health import Health
from introspan.capture.output_probe import OutputProbe
from introspan.capture.recorder import Probes, Recorder, Sinks
from introspan.capture.rows import Table
from introspan.capture.sampler import Sampling
from introspan.capture.stream_probe import StreamProbe
from introspan.capture.taps import Taps
from introspan.observation import Drawn, Request

D, V, LAYERS, ROWS_MAX = 64, 100, 3, 64


class Model:
    """Three layers that each add something to the stream, tapped before each and after the last."""

    def __init__(self, token_stride: int = 1) -> None:
        self.handed_on = []
        self.layers = [nn.Identity() for _ in range(LAYERS + 1)]
        points = [StreamPoint(i, layer, Form.LAYER_INPUT) for i, layer in enumerate(self.layers)]
        health = Health()
        self.health = health
        taps = Taps(points, ROWS_MAX, D, torch.float32, torch.device("cpu"), health)
        self.layout = lay_out((0, 1, 2), (1,), (), range(0))
        output = OutputProbe(self.layout, 8, ROWS_MAX, health)
        sinks = Sinks(
            rows=self.handed_on.append,
            **{name: lambda *_: None for name in Sinks.__dataclass_fields__ if name != "rows"},
        )
        self.recorder = Recorder(
            self.layout,
            Table(8, token_stride),
            Probes(StreamProbe(self.layout, taps, 8, D), None, output),
            health,
            sinks,
            ROWS_MAX,
            clock=lambda: 0.0,
        )

    def begin(self, *keys: str) -> None:
        for i, key in enumerate(keys):
            request = Request(key, key, bytes(16), bytes(8), 0, "", 1, 0, 1.0, i)
            self.recorder.begin(request, Sampling(1.0, 0, 1.0, 0.0, reproducible=True))

    def step(self, keys: list[str], position: int, streams: torch.Tensor, logits: torch.Tensor) -> None:
        """streams: [LAYERS + 1, requests, D]."""
        ones = np.ones(len(keys), np.int64)
        self.recorder.begin_step(keys, ones * position, ones)
        for layer, stream in zip(self.layers, streams, strict=True):
            layer(stream)
        if self.recorder.keeps_logits:
            self.recorder.before_sampling(logits)
        if self.recorder.has_rows:
            # Different tokens, so that nothing repeats itself.
            self.recorder.after_sampling(
                lambda _: position % V, lambda _: np.arange(position, dtype=np.int32)
            )

    def steps(self, keys: list[str], first: int, count: int) -> None:
        for position in range(first, first + count):
            generator = torch.Generator().manual_seed(position)
            streams = torch.randn(LAYERS + 1, len(keys), D, generator=generator)
            self.step(keys, position, streams.cumsum(dim=0), torch.randn(len(keys), V, generator=generator))

    def positions(self) -> list[list[int]]:
        return [rows.position.tolist() for rows in self.handed_on]


@pytest.mark.parametrize(
    ("where", "value"),
    [
        *(("stream", value) for value in (math.nan, math.inf, -math.inf)),
        # −Inf among logits is how a model masks tokens.
        *(("logits", value) for value in (math.nan, math.inf)),
    ],
)
def test_rows_with_a_value_that_is_not_finite_do_not_wait(where, value):
    model = Model()
    model.begin("a", "b")
    model.steps(["a", "b"], 0, 2)
    assert model.positions() == [[0, 0]], "the first step is checked at once, the second waits"
    streams, logits = torch.randn(LAYERS + 1, 2, D), torch.randn(2, V)
    if where == "stream":
        streams[1:, 1, 3] = value
    else:
        logits[1, 3] = value
    model.step(["a", "b"], 2, streams, logits)
    assert model.positions() == [[0, 0], [1, 1, 2, 2]]
    assert model.handed_on[1].closes.tolist() == [False, False, False, True]
    assert not model.health.errors


def test_a_request_that_stays_not_finite_is_hurried_once():
    model = Model()
    model.begin("a")
    model.steps(["a"], 0, 1)
    for position in (1, 2, 3):
        model.step(["a"], position, torch.full((LAYERS + 1, 1, D), math.nan), torch.randn(1, V))
    assert model.positions() == [[0], [1]]
    model.recorder.flush()
    assert model.handed_on[2].closes.tolist() == [False, False]


@pytest.mark.parametrize("pause", [1, 2, 3])
def test_velocity_and_curvature_do_not_depend_on_when_rows_are_computed(pause):
    """Of rows computed together predecessors are among them, of others they were kept."""
    at_once, in_parts = Model(), Model()
    for model in (at_once, in_parts):
        model.begin("a", "b")
    at_once.steps(["a", "b"], 0, 12)
    at_once.recorder.flush()
    for first in range(0, 12, pause):
        in_parts.steps(["a", "b"], first, min(pause, 12 - first))
        in_parts.recorder.flush()
    together, apart = (np.concatenate([rows.values for rows in m.handed_on]) for m in (at_once, in_parts))
    for name in ("residual.velocity", "residual.curvature", "residual.turn", "residual.projection"):
        block = at_once.layout.blocks[name]
        assert np.allclose(together[:, block], apart[:, block], atol=1e-6, equal_nan=True), name
    curvature = at_once.layout.blocks["residual.curvature"]
    assert np.isfinite(together[6:, curvature]).all(), "from the third decoded token on"


def test_every_measured_token_is_counted_once_and_with_all_rows_drawn_before_it():
    model = Model()
    model.begin("a", "b")
    model.steps(["a", "b"], 0, 5)
    assert model.health.drawn.tokens == sum(map(len, model.positions())) < 10
    model.recorder.finish("a")  # its rows waited, and so did those of the other
    u = np.concatenate(
        [rows.values[:, model.layout.blocks["sampler.pit"]].ravel() for rows in model.handed_on]
    )
    assert model.health.drawn == Drawn().plus(u)
    assert model.health.drawn.tokens == 10

"""When rows that wait are computed and handed on."""

import math
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import nn

from introspan.capture.columns import lay_out
from introspan.capture.health import Health
from introspan.capture.model.anatomy import Form, StreamPoint
from introspan.capture.output.probe import OutputProbe
from introspan.capture.output.sampler import Sampling
from introspan.capture.rows import Table
from introspan.capture.step.recorder import Probes, Recorder, Sinks
from introspan.capture.stream.probe import StreamProbe
from introspan.capture.taps.streams import Taps
from introspan.observation import Drawn, Request

D, V, LAYERS, ROWS_MAX = 64, 100, 3, 64


class Model:
    """Three layers that each add something to the stream, tapped before each and after the last."""

    def __init__(self, token_stride: int = 1, probe=StreamProbe, sink=None, rows_max: int = ROWS_MAX) -> None:
        self.handed_on = []
        self.layers = [nn.Identity() for _ in range(LAYERS + 1)]
        points = [StreamPoint(i, layer, Form.LAYER_INPUT) for i, layer in enumerate(self.layers)]
        health = Health()
        self.health = health
        taps = Taps(points, rows_max, D, torch.float32, torch.device("cpu"), health)
        self.layout = lay_out((0, 1, 2), (1,), (), range(0))
        output = OutputProbe(self.layout, 8, rows_max, health)
        sinks = Sinks(
            rows=sink or self.handed_on.append,
            **{name: lambda *_: None for name in Sinks.__dataclass_fields__ if name != "rows"},
        )
        self.recorder = Recorder(
            self.layout,
            Table(8, token_stride),
            Probes(probe(self.layout, taps, 8, D), None, output),
            health,
            sinks,
            rows_max,
            clock=lambda: 0.0,
        )

    def stacked(self) -> np.ndarray:
        """Values of all rows that were handed on, [rows, columns]."""
        return np.concatenate([rows.values for rows in self.handed_on])

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


def test_of_more_rows_than_buffers_hold_those_of_the_same_requests_are_measured_each_time():
    model = Model(rows_max=3)
    keys = ["e", "a", "d", "b", "c"]  # whose hashes are 0, 1, 2, 3, 4
    model.begin(*keys)
    model.steps(keys[::-1], 0, 4)
    model.recorder.flush()
    measured = [request.key for rows in model.handed_on for request in rows.requests]
    assert measured == ["d", "a", "e"] * 4
    assert model.health.dropped_rows == {"buffers_full": 8}


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


class FailsOnce(StreamProbe):
    """A probe that raises in the middle of the flush that ends at a position, after it has looked for predecessors."""

    at = 4

    def _write_steps(self, bank, last, before_last, run, values):
        if FailsOnce.at in self.positions:
            raise RuntimeError("broken on purpose")
        super()._write_steps(bank, last, before_last, run, values)

    def measure(self, selection, values):
        self.positions = selection.position.tolist()
        super().measure(selection, values)


def test_after_an_error_a_step_is_not_taken_from_a_vector_that_was_not_kept():
    model = Model(probe=FailsOnce)
    model.begin("a")
    for position in range(8):
        model.steps(["a"], position, 1)
        model.recorder.flush()
    assert model.health.errors == {"residual": 1}
    velocity, curvature = (
        np.concatenate([rows.values[:, model.layout.blocks[name]] for rows in model.handed_on])
        for name in ("residual.velocity", "residual.curvature")
    )
    # Position 4 failed, so 5 has no predecessor; 6 has one, 7 two.
    assert np.isnan(velocity).all(axis=1).tolist() == [True, True, False, False, True, True, False, False]
    assert np.isnan(curvature).all(axis=1).tolist() == [True, True, True, False, True, True, True, False]


def test_rows_that_are_dropped_are_counted_those_of_the_step_at_hand_too():
    model = Model()
    model.begin("a", "b")
    model.steps(["a", "b"], 0, 3)
    assert model.positions() == [[0, 0]], "four rows wait"
    model.recorder.begin_step(["a", "b"], np.array([3, 3]), np.array([1, 1]))
    model.recorder.discard()
    assert model.health.dropped_rows == {"discarded": 6}
    model.recorder.discard()
    assert model.health.dropped_rows == {"discarded": 6}


def test_rows_of_a_step_that_was_cut_short_are_counted():
    model = Model()
    model.begin("a", "b")
    model.recorder.begin_step(["a", "b"], np.array([0, 0]), np.array([1, 1]))
    model.steps(["a", "b"], 1, 1)
    assert model.health.dropped_rows == {"step_cut_short": 2}


def refuse(_rows):
    raise RuntimeError("broken on purpose")


def test_rows_that_are_not_taken_are_counted_and_their_request_ends_all_the_same():
    model = Model(sink=refuse)
    for number in range(20):
        key = f"request {number}"
        model.begin(key)
        with suppress(RuntimeError):  # the first step is checked at once
            model.steps([key], 0, 1)
        with pytest.raises(RuntimeError, match="broken on purpose"):
            model.recorder.finish(key)
        model.recorder.discard()
    assert model.health.dropped_rows == {"discarded": 20}
    assert not model.health.dropped_requests, "no slot is lost"


@pytest.mark.parametrize("times", [0, 2])
def test_a_tap_that_a_later_step_does_not_pass_exactly_once_switches_streams_off_and_says_so(times, caplog):
    model, whole = Model(), Model()
    for each in (model, whole):
        each.begin("a", "b")
        each.steps(["a", "b"], 0, 5)
    layer = model.layers[2]
    model.layers[2] = lambda stream: [layer(stream) for _ in range(times)]
    model.steps(["a", "b"], 5, 30)
    assert [(entry.signal, entry.reason) for entry in model.health.disabled.values()] == [
        ("residual", "tap_silent")
    ]
    assert "entering layers [2]" in model.health.disabled["residual"].detail
    assert caplog.text.count("residual is not captured (tap_silent)") == 1
    for each in (model, whole):
        each.recorder.flush()
    residual = [i for i, column in enumerate(model.layout.columns) if column.signal.startswith("residual.")]
    others = model.layout.blocks["output.repetition"]
    assert np.array_equal(model.stacked()[:10, residual], whole.stacked()[:, residual], equal_nan=True)
    assert np.isnan(model.stacked()[10:, residual]).all()
    assert np.isfinite(model.stacked()[:, others]).all()
    assert model.health.measured_rows == len(model.stacked()) == 70

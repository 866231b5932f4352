"""What a worker measures of canaries, and that traffic beside them is measured as if they were not there."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from introspan.capture.columns import lay_out
from introspan.capture.health import ERRORS_BEFORE_OFF, Health
from introspan.capture.model.anatomy import Form, StreamPoint
from introspan.capture.output.probe import OutputProbe
from introspan.capture.output.sampler import Sampling
from introspan.capture.rows import Table
from introspan.capture.step.recorder import Probes, Recorder, Sinks
from introspan.capture.stream.canary import CanaryProbe
from introspan.capture.stream.probe import StreamProbe
from introspan.capture.stream.projection import orthogonal_map
from introspan.capture.taps.streams import Taps
from introspan.observation import Request

D, V, LAYERS, ROWS_MAX = 64, 100, 6, 64
TAPPED, OTHERS = (1, 2), (0, 3, 4, 5, 6)


class Broken(CanaryProbe):
    """Raises at every row."""

    def measure(self, selection):
        raise RuntimeError(len(selection))


class Model:
    """Six layers of which traffic is measured at one; a canary is measured at all, if there is a probe for it."""

    def __init__(self, *, with_probe: bool = True, probe: type[CanaryProbe] = CanaryProbe) -> None:
        self.rows, self.canaries, self.finished = [], [], []
        self.layers = [nn.Identity() for _ in range(LAYERS + 1)]
        points = [StreamPoint(i, self.layers[i], Form.LAYER_INPUT) for i in (*TAPPED, *OTHERS)]
        self.health = Health()
        self.taps = Taps(
            points, ROWS_MAX, D, torch.float32, torch.device("cpu"), self.health, always=len(TAPPED)
        )
        self.layout = lay_out((1,), (1,), (), range(0))
        self.recorder = Recorder(
            self.layout,
            Table(8, token_stride=4),
            Probes(
                StreamProbe(self.layout, self.taps, 8, D),
                None,
                OutputProbe(self.layout, 8, ROWS_MAX, self.health),
                probe(self.taps, D, lambda: 7) if with_probe else None,
            ),
            self.health,
            Sinks(self.rows.append, self.canaries.extend, lambda *ended: self.finished.append(ended)),
            ROWS_MAX,
            clock=lambda: 0.0,
        )

    def begin(self, **is_canary: bool) -> None:
        for key, canary in is_canary.items():
            request = Request(key, key, bytes(16), bytes(8), 0, "", 1, 0, 1.0, 5, canary)
            self.recorder.begin(request, Sampling(1.0, 0, 1.0, 0.0, reproducible=True))

    def step(self, keys: list[str], position: int, streams: torch.Tensor | None = None) -> torch.Tensor:
        """One token of each request; the stream [LAYERS + 1, requests, D] depends on name and position only."""
        if streams is None:
            made = [
                torch.randn(
                    LAYERS + 1, D, generator=torch.Generator().manual_seed(ord(key[0]) + 256 * position)
                )
                for key in keys
            ]
            streams = torch.stack(made, dim=1).cumsum(dim=0)
        ones = np.ones(len(keys), np.int64)
        self.recorder.begin_step(keys, ones * position, ones)
        for layer, stream in zip(self.layers, streams, strict=True):
            layer(stream)
        if self.recorder.keeps_logits:
            self.recorder.before_sampling(streams[0, :, :1].expand(-1, V) * torch.linspace(0, 1, V))
        if self.recorder.has_rows:
            # Different tokens, so that nothing repeats itself.
            self.recorder.after_sampling(lambda _: position, lambda _: np.arange(position, dtype=np.int32))
        return streams

    def traffic(self) -> dict[tuple[str, int], np.ndarray]:
        """Measured values by request and position."""
        self.recorder.flush()
        return {
            (request.key, int(position)): values
            for rows in self.rows
            for request, position, values in zip(rows.requests, rows.position, rows.values, strict=True)
        }


def test_a_canary_is_measured_at_every_token_and_every_layer():
    model = Model()
    model.begin(traffic=False, canary=True)
    streams = [model.step(["traffic", "canary"], position) for position in range(9)]
    assert [one.token_start for one in model.canaries] == list(range(9))
    assert [one.segment_index for one in model.canaries] == list(range(9))
    assert not model.health.errors
    map_ = orthogonal_map(D).astype(np.float64)
    for position, observation in enumerate(model.canaries):
        assert (observation.request_id, observation.prompt_tokens, observation.time_unix_nano) == (
            "canary",
            1,
            7,
        )
        for column, value in zip(observation.schema.columns, observation.values, strict=True):
            h = streams[position][column.layer, 1].double().numpy()
            rms = np.sqrt(np.mean(h**2))
            expected = {
                "residual.projection": (map_ @ (h / rms))[column.component],
                "residual.log_rms": np.log(rms),
                "residual.nonfinite": 0.0,
            }[column.signal]
            assert value == pytest.approx(expected, abs=1e-5), column
    measured = {(column.signal, column.layer) for column in model.canaries[0].schema.columns}
    assert {layer for _, layer in measured} == set(range(LAYERS + 1))
    assert len(model.canaries[0].schema.columns) == (LAYERS + 1) * 34


def test_traffic_beside_a_canary_is_measured_as_if_it_were_alone():
    alone, beside = Model(), Model()
    alone.begin(traffic=False)
    beside.begin(traffic=False, canary=True)
    for position in range(30):
        alone.step(["traffic"], position)
        # The canary comes, goes and comes again.
        beside.step(["canary", "traffic"] if position % 7 < 3 else ["traffic"], position)
    expected, got = alone.traffic(), beside.traffic()
    assert expected.keys() == got.keys()
    for where, values in expected.items():
        assert np.allclose(values, got[where], atol=1e-5, equal_nan=True), where


@pytest.mark.parametrize("with_probe", [True, False])
def test_nothing_of_a_canary_is_traffic(with_probe):
    model = Model(with_probe=with_probe)
    model.begin(traffic=False, canary=True)
    for position in range(9):
        model.step(["traffic", "canary"], position)
    model.recorder.finish("canary")
    model.recorder.finish("traffic")
    assert {key for key, _ in model.traffic()} == {"traffic"}
    assert [request.key for request, _ in model.finished] == ["traffic"]
    assert all(rows.requests for rows in model.rows)
    assert bool(model.canaries) == with_probe
    assert not model.health.errors


def test_layers_that_only_canaries_need_are_left_alone_without_one():
    model = Model()
    model.begin(traffic=False, canary=True)
    model.step(["traffic", "canary"], 0)  # the first step looks at every tap
    model.step(["traffic"], 1)
    assert sorted(model.taps.silent()) == sorted(OTHERS)
    model.step(["canary"], 1)
    assert model.taps.silent() == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_counted_where_it_is(value):
    model = Model()
    model.begin(canary=True)
    streams = torch.randn(LAYERS + 1, 1, D)
    streams[4:, 0, 3] = value
    model.step(["canary"], 0, streams)
    (observation,) = model.canaries
    found = dict(zip(observation.schema.columns, observation.values.tolist(), strict=True))
    nonfinite = {
        column.layer: found for column, found in found.items() if column.signal == "residual.nonfinite"
    }
    assert nonfinite == {0: 0, 1: 0, 2: 0, 3: 0, 4: 1, 5: 1, 6: 1}
    log_rms = {c.layer: v for c, v in found.items() if c.signal == "residual.log_rms"}
    assert [layer for layer, v in log_rms.items() if math.isnan(v)] == [4, 5, 6]


def test_a_slot_that_a_canary_had_is_traffics_again():
    model = Model()
    model.begin(canary=True)
    model.step(["canary"], 0)
    model.recorder.finish("canary")
    model.begin(canary=False)
    for position in range(1, 9):
        model.step(["canary"], position)
    assert len(model.canaries) == 1
    assert len(model.traffic()) < 8


def test_a_probe_of_canaries_that_raises_is_switched_off_and_costs_traffic_nothing():
    model = Model(probe=Broken)
    model.begin(traffic=False, canary=True)
    for position in range(9):
        model.step(["traffic", "canary"], position)
    assert model.health.errors["canary"] == ERRORS_BEFORE_OFF
    entropy = model.layout.blocks["output.entropy"].start
    assert {key for key, _ in model.traffic()} == {"traffic"}
    assert np.isfinite([values[entropy] for values in model.traffic().values()]).any()

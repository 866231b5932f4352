"""The life of requests over a forward that is only replayed: measured as if Python had run each layer."""

import numpy as np
import pytest
import torch

from introspan.capture.columns import lay_out
from introspan.capture.health import Health
from introspan.capture.output.probe import OutputProbe
from introspan.capture.output.sampler import Sampling
from introspan.capture.rows import Table
from introspan.capture.step.recorder import TOGETHER_ROWS, Probes, Recorder, Sinks
from introspan.capture.stream.probe import StreamProbe
from introspan.capture.taps.streams import Taps
from introspan.observation import Request
from tests.decoder import LAYERS, WIDTH, Decoder, inputs
from tests.graphs import Graph

REQUESTS, V = 4, 50
ROWS_MAX = REQUESTS + TOGETHER_ROWS


class Served:
    """A decoder of which every token is measured, run by Python or replayed from one recorded forward."""

    def __init__(self, *, is_replayed: bool) -> None:
        self.model, self.health, self.handed_on = Decoder(), Health(), []
        self.graph = Graph() if is_replayed else None
        taps = Taps(
            self.model.stream_points(),
            ROWS_MAX,
            WIDTH,
            torch.float32,
            torch.device("cpu"),
            self.health,
            static=is_replayed,
        )
        layout = lay_out(tuple(range(LAYERS)), (), (), range(0))
        self.recorder = Recorder(
            layout,
            Table(8, 1),
            Probes(StreamProbe(layout, taps, 8, WIDTH), None, OutputProbe(layout, 8, ROWS_MAX, self.health)),
            self.health,
            Sinks(self.handed_on.append, lambda _: None, lambda *_: None),
            ROWS_MAX,
            clock=lambda: 0.0,
        )
        self.x, self.positions = inputs(REQUESTS, 0)
        if self.graph is not None:
            with torch.inference_mode(), self.graph:
                self.model(self.x, self.positions)

    def begin(self, *keys: str) -> None:
        for i, key in enumerate(keys):
            request = Request(key, key, bytes(16), bytes(8), 0, "", 1, 0, 1.0, i)
            self.recorder.begin(request, Sampling(1.0, 0, 1.0, 0.0, reproducible=True))

    @torch.inference_mode()
    def step(self, keys: list[str], position: int) -> None:
        """One token of each request, in a forward over REQUESTS tokens: what is left of them is padding."""
        ones = np.ones(len(keys), np.int64)
        self.recorder.begin_step(keys, ones * position, ones)
        for memory, new in zip((self.x, self.positions), inputs(REQUESTS, position), strict=True):
            memory.copy_(new)
        if self.graph is None:
            self.model(self.x, self.positions)
        else:
            self.graph.replay()
        if self.recorder.keeps_logits:
            self.recorder.before_sampling(self.x[: len(keys)].repeat(1, 4)[:, :V])
        # Different tokens, so that nothing repeats itself.
        self.recorder.after_sampling(lambda _: position % V, lambda _: np.arange(position, dtype=np.int32))

    def values(self) -> np.ndarray:
        return np.concatenate([rows.values for rows in self.handed_on])


def test_a_replayed_forward_is_measured_as_if_python_had_run_it():
    run, replayed = Served(is_replayed=False), Served(is_replayed=True)
    for served in (run, replayed):
        served.begin("a", "b", "c")
        for position in range(30):
            served.step([["a"], ["b", "a"], ["c", "a", "b"]][position % 3], position)
        served.recorder.flush()
        assert not served.health.errors
        assert not served.health.disabled
    assert len(run.handed_on) > 2, "the first step alone, those after it together"
    np.testing.assert_array_equal(run.values(), replayed.values())
    assert np.isfinite(run.values()[:, : LAYERS * 3]).any()


@pytest.mark.parametrize("since", [0, 5])
def test_a_tap_that_a_graph_lacks_switches_streams_off_and_is_named(since):
    served = Served(is_replayed=True)
    served.begin("a")
    for position in range(10):
        if position == since:
            missing = served.model.norms[2].introspan_fired
            served.graph.kernels = [
                kernel for kernel in served.graph.kernels if not any(arg is missing for arg in kernel.reads)
            ]
        served.step(["a"], position)
    served.recorder.flush()
    (entry,) = served.health.disabled.values()
    assert (entry.signal, entry.reason) == ("residual", "tap_silent")
    assert "entering layers [2]" in entry.detail

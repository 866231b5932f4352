"""Taps in a model that is compiled whole: they are traced, and what they copy changes without compiling again."""

import pytest
import torch

from introspan.capture.health import Health
from introspan.capture.taps.streams import CHECK_ROWS, Taps
from tests.decoder import LAYERS, WIDTH, Decoder, inputs

TOKENS, ROWS_MAX, ALWAYS = 9, 16, 2


class Compiled:
    """A tapped decoder, compiled by torch without kernels of its own, and the graphs that came of it."""

    def __init__(self, *, static: bool, backend: str) -> None:
        torch._dynamo.reset()
        self.model, self.health, self.graphs = Decoder(), Health(), []
        device = torch.device("cpu")
        points = self.model.stream_points()
        self.taps = Taps(points, ROWS_MAX, WIDTH, torch.float32, device, self.health, ALWAYS, static=static)

        def compile_graph(graph, example_inputs):
            self.graphs.append(graph)
            return torch._dynamo.lookup_backend(backend)(graph, example_inputs)

        self.run = torch.compile(self.model, backend=compile_graph, fullgraph=True)

    @torch.inference_mode()
    def step(self, seed: int, rows: list[int], start: int, **asked: bool) -> None:
        self.taps.select(torch.tensor(rows), start, **({"with_output": False} | asked))
        self.run(*inputs(TOKENS, seed))
        assert self.taps.complete()
        self.taps.deselect()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize(("static", "operator"), [(True, "introspan.tap_static"), (False, "introspan.tap")])
def test_compiled_taps_copy_what_each_step_asks_for(static, operator, backend):
    compiled = Compiled(static=static, backend=backend)
    steps = [(1, [2, 4], 0), (2, [0, 1, 8], 2), (3, [5], 5)]
    compiled.step(0, [1, 7], 0, with_output=True)
    assert compiled.taps.silent() == []
    first = compiled.model.said_again(*inputs(TOKENS, 0))
    for tap in range(LAYERS + 1):
        assert torch.allclose(compiled.taps.outputs(tap, CHECK_ROWS)[:2], first.normed[tap, [1, 7]])
    for seed, rows, start in steps:
        compiled.step(seed, rows, start)
    kept = compiled.taps.rows(6, everywhere=True).transpose(0, 1)
    for seed, rows, start in steps:
        streams = compiled.model.said_again(*inputs(TOKENS, seed)).streams
        places = slice(start, start + len(rows))
        assert torch.allclose(kept[:ALWAYS, places], streams[:ALWAYS, rows])
    assert not compiled.taps.was_silent()
    (graph,) = compiled.graphs
    calls = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert calls.count(operator) + calls.count(f"{operator}.default") == LAYERS + 1
    assert not compiled.health.errors


@torch.inference_mode()
def test_a_compiled_forward_that_nobody_asks_about_leaves_the_buffers_as_they_are():
    compiled = Compiled(static=True, backend="aot_eager")
    compiled.step(0, [1, 7], 0, everywhere=True)
    before = compiled.taps.rows(ROWS_MAX, everywhere=True).clone()
    compiled.run(*inputs(TOKENS, 1))
    assert torch.equal(compiled.taps.rows(ROWS_MAX, everywhere=True), before)
    assert compiled.taps.silent() == []

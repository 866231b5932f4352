"""An engine's choice of graphs, some of which lack the taps, in; what is measured of a request behind it, out.

In a process where kernels are interpreted (see `interpreted.py`) streams are measured by them, elsewhere as on a host.
"""

import os
from dataclasses import dataclass

import numpy as np
import torch

from introspan.capture.columns import Layout, lay_out
from introspan.capture.health import Health
from introspan.capture.output.sampler import Sampling
from introspan.capture.part import Part
from introspan.capture.rows import Table
from introspan.capture.runner.arrival import Drawn, Known
from introspan.capture.runner.choice import ladder_of
from introspan.capture.runner.graph_modes import GraphModes
from introspan.capture.runner.ladder import Ladder
from introspan.capture.step.device_recorder import DeviceRecorder
from introspan.capture.step.ending import Ending
from introspan.capture.step.landing import Landing
from introspan.capture.step.probes import Probes
from introspan.capture.step.recorder import TOGETHER_ROWS
from introspan.capture.step.ring import ResultsRing
from introspan.capture.step.sinks import Sinks
from introspan.capture.taps.streams import Taps
from introspan.observation import Disabled, Request
from tests.begun import BegunOutput, BegunStreams, Lag, Mark
from tests.decoder import LAYERS, WIDTH, Decoder, inputs
from tests.dispatching import V1, V2, engine_config, step
from tests.graphs import Graph

REQUESTS, VOCABULARY, CAPACITY, DEPTH, LATE = 4, 50, 8, 2, 5
ROWS_MAX = REQUESTS + TOGETHER_ROWS
_CPU = torch.device("cpu")


class _Streams(BegunStreams):
    """Says first whether taps were silent, as a device does."""

    landing: Landing

    def __init__(self, parts: list[Part], layout: Layout, taps: Taps) -> None:
        super().__init__(parts, layout, taps, CAPACITY, WIDTH)
        self.parts, self.counts = parts, np.zeros(len(taps.points), np.float32)

    def measure(self, selection, values) -> None:
        counts = self.taps.silent_steps()
        assert counts is not None
        self.parts.append(Part("residual", counts.float(), self._take_silent))
        super().measure(selection, values)

    def _take_silent(self, numbers, _) -> None:
        if (numbers != self.counts).any():
            self.landing.silent("residual", "silent")
        self.counts = numbers.copy()


def _streams(parts: list[Part], layout: Layout, taps: Taps, landing: Landing):
    if os.environ.get("TRITON_INTERPRET") != "1":
        made = _Streams(parts, layout, taps)
        made.landing = landing
        return made
    from introspan.capture.stream.device_probe import DeviceStreamProbe

    class Launched(DeviceStreamProbe):
        def measure(self, selection, values) -> None:  # noqa: ARG002 - they come later
            parts.extend(self.launch(selection))

    return Launched(layout, taps, CAPACITY, WIDTH, lambda _: landing.silent("residual", "silent"))


@dataclass(frozen=True)
class Outcome:
    """modes: of each step; measured: by position of each row that was handed on, whether its streams were."""

    modes: list[str]
    measured: dict[int, bool]
    disabled: dict[str, Disabled]
    rung: str
    waits: int


class Served:
    """A decoder of which every token of one request is measured. silent: modes that lack the taps from a step on."""

    def __init__(self, runner: str, mode: str, silent: set[str], silent_from: int, **parallel: int) -> None:
        self.model, self.health, self.handed_on = Decoder(), Health(), []
        taps = Taps(
            self.model.stream_points(), ROWS_MAX, WIDTH, torch.float32, _CPU, self.health, static=True
        )
        config = engine_config(mode, **parallel)
        kind = {"V1": V1, "V2": V2}[runner]
        self.runner = kind(config, self._prepare, self._run)
        self.lag, self.position = Lag(LATE), 0
        self.ladder = self._followed(config, taps)
        self.x, self.positions = inputs(REQUESTS, 0)
        self.silent, self.silent_from = silent, silent_from
        self.graphs = {is_silent: self._recorded(is_silent=is_silent) for is_silent in (False, True)}

    def _followed(self, config, taps: Taps) -> Ladder:
        self.layout, table = lay_out(tuple(range(LAYERS)), (), (), range(0)), Table(CAPACITY, 1)
        ladder = ladder_of(self.runner, config, self.health, ("residual",), lambda: len(table) > 0)
        parts: list[Part] = []
        streams = [block for name, block in self.layout.blocks.items() if name.startswith("residual.")]
        ring = ResultsRing(64, 2 * ROWS_MAX * len(self.layout.columns), _CPU, lambda: Mark(self.lag))
        landing = Landing(ring, {"residual": streams}, self.health, ladder.fall)
        probes = Probes(
            _streams(parts, self.layout, taps, landing),
            None,
            BegunOutput(parts, self.layout, CAPACITY, ROWS_MAX, self.health),
        )
        self.recorder = DeviceRecorder(
            self.layout,
            table,
            probes,
            self.health,
            Sinks(self.handed_on.append, lambda _: None, lambda *_: None),
            ROWS_MAX,
            CAPACITY,
            DEPTH,
            parts,
            landing,
            ladder,
            clock=lambda: 0.0,
        )
        GraphModes(self.runner, config, self.health).follow(ladder)
        return ladder

    def _recorded(self, *, is_silent: bool) -> Graph:
        graph = Graph()
        with torch.inference_mode(), graph:
            self.model(self.x, self.positions)
        if is_silent:
            fired = [norm.introspan_fired for norm in self.model.norms]
            graph.kernels = [
                kernel
                for kernel in graph.kernels
                if not any(read is one for read in kernel.reads for one in fired)
            ]
        return graph

    def _prepare(self) -> None:
        one = np.ones(1, np.int64)
        self.recorder.begin_step(["a"], one * self.position, one)

    def _run(self, mode) -> None:
        for memory, new in zip((self.x, self.positions), inputs(REQUESTS, self.position), strict=True):
            memory.copy_(new)
        is_silent = mode.name in self.silent and self.position >= self.silent_from
        self.graphs[is_silent].replay()
        if self.recorder.keeps_logits:
            self.recorder.before_sampling(self.x[:1].repeat(1, 4)[:, :VOCABULARY])
        # Different tokens, so that nothing repeats itself.
        token = [[self.position % VOCABULARY]]
        if self.recorder.has_rows:
            self.recorder.after_sampling(Drawn(torch.tensor(token)), None)
        self.recorder.sent(["a"], np.array([self.position]), Known(token))

    @torch.inference_mode()
    def serve(self, steps: int) -> Outcome:
        request = Request("a", "a", bytes(16), bytes(8), 0, "", 1, 0, 1.0, 0)
        sampling = Sampling(1.0, 0, 1.0, 0.0, reproducible=True)
        self.recorder.schedule()
        self.recorder.begin_ending(request, sampling, Ending(frozenset(), steps - 1))
        for self.position in range(steps):
            self.lag.now += 1
            self.recorder.schedule()
            self.runner.execute_model(step(1))
        waits = self.lag.waits
        self.recorder.schedule()
        self.recorder.finish("a")
        for _ in range(DEPTH + 1):
            self.recorder.schedule()
            self.recorder.settle()
        assert not self.health.errors, self.health.errors
        assert not self.health.dropped_rows, self.health.dropped_rows
        return Outcome(
            self.runner.modes, self._measured(), self.health.disabled, self.ladder.rung.name, waits
        )

    def _measured(self) -> dict[int, bool]:
        """Rows that were measured have the numbers of their position, and the others none."""
        log_rms, logprob = (self.layout.blocks[name] for name in ("residual.log_rms", "output.logprob"))
        found = {}
        for rows in self.handed_on:
            for position, values in zip(rows.position.tolist(), rows.values, strict=True):
                assert np.isfinite(values[logprob]).all(), "what needs no tap is measured in each row"
                found[position] = not np.isnan(values[log_rms]).any()
                if not found[position]:
                    assert np.isnan(values[log_rms]).all()
                    continue
                streams = self.model.said_again(*inputs(REQUESTS, position)).streams[:LAYERS, 0]
                expected = streams.double().square().mean(-1).sqrt().log().numpy()
                # Near 1 a logarithm is near 0.
                np.testing.assert_allclose(values[log_rms], expected, rtol=0, atol=1e-6)
        return found


def serve(runner: str, mode: str, silent: list[str], silent_from: int, steps: int, parallel: dict) -> Outcome:
    """What comes of so many steps of an engine."""
    return Served(runner, mode, set(silent), silent_from, **parallel).serve(steps)

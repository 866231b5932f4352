"""Taps that do not fire at replay: the ladder goes down rung by rung, and what is measured then is right."""

import logging
from collections import Counter

import numpy as np
import pytest
import torch

from introspan.capture.columns import lay_out
from introspan.capture.health import Health
from introspan.capture.output.probe import OutputProbe
from introspan.capture.output.sampler import Sampling
from introspan.capture.rows import BURST, Table
from introspan.capture.runner.graph_modes import GraphModes
from introspan.capture.runner.ladder import EVERY, Ladder, Rung
from introspan.capture.step.probes import Probes
from introspan.capture.step.recorder import TOGETHER_ROWS, Recorder
from introspan.capture.step.sinks import Sinks
from introspan.capture.stream.probe import StreamProbe
from introspan.capture.taps.streams import Taps
from introspan.observation import Disabled, Request
from tests.decoder import LAYERS, WIDTH, Decoder, inputs
from tests.dispatching import V1, V2, engine_config, step
from tests.graphs import Graph

REQUESTS, V, LATE = 4, 50, 5
ROWS_MAX = REQUESTS + TOGETHER_ROWS
NONE = np.full(0, 0, np.int64)


class LadderedRecorder(Recorder):
    """Learns steps later that taps were silent, as from a device, and climbs down."""

    ladder: Ladder
    was_silent = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.verdicts: list[tuple[int, int]] = []  # when it comes, and of when

    def begin_step(self, ids, start, scheduled):
        if self.verdicts and self.verdicts[0][0] <= self.ladder.steps:
            _, since = self.verdicts.pop(0)
            if not self.ladder.fall("residual", "silent", since):
                self._health.refuse(Disabled("residual", "tap_silent", "silent"))
        if self.ladder.measures_now():
            super().begin_step(ids, start, scheduled)
        else:
            self.flush()
            super().begin_step([], NONE, NONE)

    def after_sampling(self, tokens, generated):
        if self._selection is not None:
            self.was_silent |= self._health.is_on("residual") and bool(self._probes.stream.taps.silent())
        super().after_sampling(tokens, generated)

    def _measure_streams(self, stream, selection, values):
        if self.was_silent:
            self.verdicts.append((self.ladder.steps + LATE, self.ladder.steps))
        else:
            stream.measure(selection, values)
        self.was_silent = False


class Served:
    """A decoder behind an engine's choice of graphs, of which every token is measured; modes in `silent` lack taps."""

    def __init__(self, kind, mode: str, silent: set[str], **parallel: int) -> None:
        self.model, self.health, self.handed_on = Decoder(), Health(), []
        taps = Taps(
            self.model.stream_points(),
            ROWS_MAX,
            WIDTH,
            torch.float32,
            torch.device("cpu"),
            self.health,
            static=True,
        )
        layout, table = lay_out(tuple(range(LAYERS)), (), (), range(0)), Table(8, 1)
        self.recorder = LadderedRecorder(
            layout,
            table,
            Probes(StreamProbe(layout, taps, 8, WIDTH), None, OutputProbe(layout, 8, ROWS_MAX, self.health)),
            self.health,
            Sinks(self.handed_on.append, lambda _: None, lambda *_: None),
            ROWS_MAX,
            clock=lambda: 0.0,
        )
        self.recorder._streams_checked = True  # elsewhere: the first rows are checked at once
        config = engine_config(mode, **parallel)
        self.runner = kind(config, self._prepare, self._run)
        modes = GraphModes(self.runner, config, self.health)
        self.ladder = self.recorder.ladder = Ladder(
            modes.refusal, self.health, ("residual",), lambda: len(table) > 0
        )
        modes.follow(self.ladder)
        self.x, self.positions = inputs(REQUESTS, 0)
        self.graphs = {
            name: self._recorded(tapped=name not in silent) for name in ("FULL", "PIECEWISE", "NONE")
        }
        self.position, self.keys = 0, ["a"]
        self.residual, self.output = (
            slice(layout.blocks["residual.log_rms"].start, layout.blocks["residual.log_rms"].stop),
            layout.blocks["output.logprob"].start,
        )

    def _recorded(self, *, tapped: bool) -> Graph:
        graph = Graph()
        with torch.inference_mode(), graph:
            self.model(self.x, self.positions)
        if not tapped:
            fired = [norm.introspan_fired for norm in self.model.norms]
            graph.kernels = [
                kernel
                for kernel in graph.kernels
                if not any(read is one for read in kernel.reads for one in fired)
            ]
        return graph

    def begin(self) -> None:
        request = Request("a", "a", bytes(16), bytes(8), 0, "", 1, 0, 1.0, 0)
        self.recorder.begin(request, Sampling(1.0, 0, 1.0, 0.0, reproducible=True))

    def _prepare(self) -> None:
        ones = np.ones(len(self.keys), np.int64)
        self.recorder.begin_step(self.keys, ones * self.position, ones)

    def _run(self, mode) -> None:
        for memory, new in zip((self.x, self.positions), inputs(REQUESTS, self.position), strict=True):
            memory.copy_(new)
        self.graphs[mode.name].replay()
        if self.recorder.keeps_logits:
            self.recorder.before_sampling(self.x[:1].repeat(1, 4)[:, :V])
        self.recorder.after_sampling(
            lambda _: self.position % V, lambda _: np.arange(self.position, dtype=np.int32)
        )

    @torch.inference_mode()
    def serve(self, steps: int) -> None:
        for _ in range(steps):
            self.runner.execute_model(step(1))
            self.position += 1

    def check(self) -> dict[int, bool]:
        """Whether a row's streams were measured, by position; those that were have the numbers of their position."""
        self.recorder.flush()
        found = {}
        for rows in self.handed_on:
            for position, values in zip(rows.position.tolist(), rows.values, strict=True):
                log_rms = values[self.residual]
                found[position] = bool(np.isfinite(log_rms).all())
                assert np.isfinite(values[self.output]), "what needs no tap is measured in each row"
                if found[position]:
                    streams = self.model.said_again(*inputs(REQUESTS, position)).streams[:LAYERS, 0]
                    expected = streams.double().square().mean(-1).sqrt().log().numpy()
                    np.testing.assert_allclose(
                        log_rms, expected, rtol=0, atol=1e-6
                    )  # near 1 its logarithm is near 0
                else:
                    assert np.isnan(log_rms).all()
        assert not self.health.errors
        return found


RUNNERS = pytest.mark.parametrize("kind", [V1, V2])


@RUNNERS
def test_taps_that_fire_leave_each_step_as_it_is(kind):
    served = Served(kind, "FULL_AND_PIECEWISE", set())
    served.begin()
    served.serve(20)
    assert all(served.check().values())
    assert set(served.runner.modes) == {"FULL"}
    assert not served.health.disabled


@RUNNERS
def test_a_tap_that_full_graphs_lack_is_measured_between_pieces(kind, caplog):
    served = Served(kind, "FULL_AND_PIECEWISE", {"FULL"})
    served.begin()
    with caplog.at_level(logging.WARNING, "introspan"):
        served.serve(2 * EVERY[Rung.PIECEWISE])
    found, modes = served.check(), served.runner.modes
    assert served.ladder.rung is Rung.PIECEWISE
    lowered = [place for place, mode in enumerate(modes) if mode == "PIECEWISE"]
    assert len(lowered) == 2 * BURST
    assert [position for position, is_measured in found.items() if is_measured] == lowered
    assert max(set(found) - set(lowered)) < lowered[0], "nothing is measured between bursts"
    assert Counter(modes) == {"PIECEWISE": 2 * BURST, "FULL": len(modes) - 2 * BURST}
    (entry,) = served.health.disabled.values()
    assert (entry.signal, entry.reason) == ("capture.full_graphs", "tap_silent")
    assert len(caplog.records) == 1, "said once"


@RUNNERS
def test_a_tap_that_pieces_lack_too_is_measured_without_graphs(kind, caplog):
    served = Served(kind, "FULL_AND_PIECEWISE", {"FULL", "PIECEWISE"})
    served.begin()
    with caplog.at_level(logging.WARNING, "introspan"):
        served.serve(2 * EVERY[Rung.PIECEWISE])
    found = served.check()
    assert served.ladder.rung is Rung.EAGER
    without = [place for place, mode in enumerate(served.runner.modes) if mode == "NONE"]
    assert len(without) == BURST
    assert [position for position, is_measured in found.items() if is_measured] == without
    assert list(served.health.disabled) == ["capture.full_graphs", "capture.graphs"]
    assert len(caplog.records) == 2


@RUNNERS
def test_an_engine_without_pieces_skips_that_rung(kind):
    served = Served(kind, "FULL_DECODE_ONLY", {"FULL"})
    served.begin()
    served.serve(100)
    assert any(served.check().values())
    assert list(served.health.disabled) == ["capture.graphs"]


@RUNNERS
def test_a_tap_that_never_fires_is_off_and_all_else_is_measured_as_before(kind, caplog):
    served = Served(kind, "FULL_AND_PIECEWISE", {"FULL", "PIECEWISE", "NONE"})
    served.begin()
    with caplog.at_level(logging.WARNING, "introspan"):
        served.serve(1_000)
    found = served.check()
    assert not any(found.values())
    assert list(served.health.disabled) == ["capture.full_graphs", "capture.graphs", "residual"]
    assert len(caplog.records) == 4, "three steps down, and why there is none below"
    assert "silent without graphs too" in caplog.text
    last = len(served.runner.modes) - 100
    assert set(served.runner.modes[last:]) == {"FULL"}
    assert set(range(last, last + 100)) <= found.keys(), "each row's output"


@RUNNERS
def test_workers_that_share_a_model_switch_it_off_at_once(kind, caplog):
    served = Served(kind, "FULL_AND_PIECEWISE", {"FULL"}, tensor_parallel_size=2)
    served.begin()
    with caplog.at_level(logging.WARNING, "introspan"):
        served.serve(200)
    served.check()
    assert set(served.runner.modes) == {"FULL"}
    assert list(served.health.disabled) == ["residual"]
    assert "cannot agree" in caplog.text


def ladder(signals=("residual",), refused=(), **kwargs) -> Ladder:
    return Ladder(lambda rung: f"no {rung.name}" if rung in refused else None, Health(), signals, **kwargs)


def lowered(of: Ladder, steps: int) -> list[int]:
    """Which of so many steps are run otherwise; they are the ones that are measured."""
    found = []
    for _ in range(steps):
        rung = of.begin_step()
        assert of.measures_now() == (rung is of.rung)
        if rung is not Rung.IN_GRAPH:
            found.append(of.steps)
    return found


@pytest.mark.parametrize("rung", [Rung.PIECEWISE, Rung.EAGER])
def test_bursts_begin_at_once_and_are_as_rare_as_their_cost_demands(rung):
    one = ladder(refused=set(Rung) - {rung})
    lowered(one, 10)
    assert one.fall("residual", "silent", 10)
    found = lowered(one, 3 * EVERY[rung])
    assert found == [12 + burst * EVERY[rung] + place for burst in range(3) for place in range(BURST)]


def test_what_steps_before_a_fall_show_is_no_reason_for_another():
    one = ladder(("residual", "attention"))
    lowered(one, 10)
    assert one.fall("residual", "silent", 7)
    lowered(one, 5)
    assert one.fall("attention", "silent", 11), "what waited was computed in the step behind the fall"
    assert one.rung is Rung.PIECEWISE
    assert one.fall("residual", "silent", 12)
    assert one.rung is Rung.EAGER
    lowered(one, 5)
    assert one.fall("residual", "silent", 16)
    assert not one.fall("residual", "silent", 17)


def test_a_burst_waits_until_there_is_something_to_measure():
    is_wanted = False
    one = ladder(is_wanted=lambda: is_wanted)
    lowered(one, 1)
    one.fall("residual", "silent", 1)
    assert not lowered(one, 1_000)
    is_wanted = True
    assert lowered(one, 200) == [1_002, 1_003, 1_004]


def test_a_signal_that_is_off_takes_no_rung_and_none_is_paid_for_when_all_are():
    health = Health()
    one = Ladder(lambda _: None, health, ("residual", "attention"))
    lowered(one, 1)
    health.refuse(Disabled("attention", "self_check_failed", "differs"))
    assert not one.fall("attention", "silent", 1)
    assert one.rung is Rung.IN_GRAPH
    assert one.fall("residual", "silent", 1)
    assert len(lowered(one, 10)) == BURST
    health.refuse(Disabled("residual", "remote_brake", "asked for"))
    for _ in range(2 * EVERY[Rung.PIECEWISE]):
        assert one.begin_step() is Rung.IN_GRAPH
        assert one.measures_now()


def test_why_there_is_no_other_rung_is_said_once(caplog):
    one = ladder(("residual", "attention"), refused=set(Rung))
    lowered(one, 1)
    with caplog.at_level(logging.WARNING, "introspan"):
        assert not one.fall("residual", "silent", 1)
        assert not one.fall("attention", "silent", 1)
    assert [record.getMessage() for record in caplog.records] == [
        "introspan: there is no other way to measure residual: no PIECEWISE; no EAGER"
    ]

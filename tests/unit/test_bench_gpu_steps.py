"""What steps of `python -m bench.gpu` make of what an engine gives them: waits by line, rows that lack, draws."""

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import introspan
from bench.gpu import ladder, program, replay, sampler, thread, waiting, watched
from bench.gpu.engines import Measured
from bench.gpu.reference import _recent
from bench.gpu.scale import FULL, REHEARSAL
from bench.gpu.steps import STEPS
from bench.gpu.watched import Watch
from introspan.capture.health import Health
from introspan.capture.runner.edge import Edge
from introspan.capture.runner.ladder import Ladder

_FILE = Path(introspan.__file__).parent / "capture" / "probe.py"
_CODE = """
def work(action):
    action()

def settle(action):
    action()
"""


def _ours():
    """Functions that are part of the product, as far as their frames say."""
    made = {}
    exec(compile(_CODE, str(_FILE), "exec"), made)
    return SimpleNamespace(**made)


@pytest.fixture
def installed(monkeypatch):
    """A watch that looks for waits, of this test alone; torch's own ways to wait do nothing here."""
    for owner, name in (
        (watched._EDGE, "_guarded"),
        (watched._LADDER, "__init__"),
        (watched._RECORDER, "flush"),
        (watched._RECORDER, "begin_step"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    for owner in (torch.cuda.Event, torch.cuda.Stream, torch.cuda):
        monkeypatch.setattr(owner, "synchronize", lambda *_: None)
    watch = Watch()
    watch.install(waits=True)
    return watch


def test_a_wait_is_told_by_the_line_of_ours_that_waits():
    watch, ours = Watch(), _ours()
    ours.work(watch.note)
    watch._has_flushed = True
    ours.work(watch.note)
    ours.work(watch.note)
    ours.settle(watch.note)
    watch.note()  # the engine's own
    found = watch.found()
    assert (found["first"], found["later"], found["idle"]) == (
        {"probe.py:3": 1},
        {"probe.py:3": 2},
        {"probe.py:6": 1},
    )
    assert waiting.summary(found | {"flush_seconds": [0.1]})["where"] == "probe.py:3 2×"


def test_what_torch_warns_of_and_waiting_by_name_count_inside_our_work_alone(installed):
    edge, ours = Edge(SimpleNamespace(discard=lambda: None), Health(), lambda _: None), _ours()
    installed._has_flushed = True
    torch_says = "called a synchronizing CUDA operation (Triggered internally at …)"
    ours.work(torch.cuda.synchronize)
    assert not installed.later, "nobody was at our work"
    edge._guarded(lambda: ours.work(torch.cuda.synchronize))
    edge._guarded(lambda: ours.work(lambda: warnings.warn(torch_says, stacklevel=1)))
    edge._guarded(lambda: ours.work(lambda: warnings.warn("something else", stacklevel=1)))
    assert installed.later == {"probe.py:3": 2}
    assert not edge._health.errors
    assert not edge._turn._health.disabled


def test_flushes_and_steps_are_counted_and_ladders_kept(installed):
    recorder = SimpleNamespace(_waiting=SimpleNamespace(count=0))
    watched._RECORDER.flush(SimpleNamespace(_waiting=recorder._waiting))
    assert installed.flush_seconds == [], "nothing waited"
    made = Ladder(lambda _: "none", Health(), ("residual",))
    assert installed.ladders == [made]
    installed.steps = 3
    installed.forget()
    assert installed.found()["steps"] == 0


def _measured(rows):
    """Rows of two requests, one column; rows: by name, values in order."""
    ids = [name for name, values in rows.items() for _ in values]
    positions = np.concatenate([np.arange(len(values)) for values in rows.values()])
    values = np.concatenate([np.array(values, np.float32) for values in rows.values()])[:, None]
    return Measured([("attention.entropy", 0, 0, -1)], ids, positions, values)


def test_rows_that_lack_repeat_or_have_no_value_in_graphs_are_counted():
    said = {"a": [5, 6, 7], "b": [8, 9]}
    eager = said, _measured({"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0]}), {}
    graphs = said, _measured({"a": [1.5, 1.5, np.nan], "b": [4.0]}), {}
    assert replay.compared("attention.entropy", eager, eager)["unmeasured_rows"] == 0
    found = replay.compared("attention.entropy", eager, graphs)
    assert (found["unmeasured_rows"], found["stale_rows"]) == (2, 1)
    assert found["largest_difference_to_eager"] == 0.5


def test_rows_are_compared_up_to_the_first_token_that_differs():
    eager = {"a": [5, 6, 7]}, _measured({"a": [1.0, 2.0, 3.0]}), {}
    graphs = {"a": [5, 9, 7]}, _measured({"a": [1.0, 2.0, 9.0]}), {}
    assert replay.compared("attention.entropy", eager, graphs)["largest_difference_to_eager"] == 0.0


def test_values_that_are_not_uniform_are_improbable():
    draw = np.random.default_rng(1)
    assert sampler.uniformity(draw.random(4000).astype(np.float32))["p"] > 0.001
    assert sampler.uniformity((draw.random(4000) ** 1.2).astype(np.float32))["p"] < 0.001
    assert sampler.uniformity(np.full(3, np.nan, np.float32)) == {"distance": 1.0, "p": 0.0, "values": 0}


def test_every_way_to_draw_and_greedy_ones_are_asked_of_each_prompt():
    asked = sampler.requests([[1, 2], [3]], 7)
    ways = [one["params"] for one in asked if one["name"].startswith("drawn-1")]
    assert all(way | {"max_tokens": 7} in ways for way in sampler._WAYS)
    assert sum(one["params"] == {"max_tokens": 7, "temperature": 0.0} for one in asked) == 4
    assert len({one["name"] for one in asked}) == len(asked)


def test_the_newest_keys_are_those_up_to_the_query_itself():
    weights = np.tile(np.arange(100.0), (2, 100, 1))
    assert _recent(weights)[1, 99] == sum(range(36, 100))
    assert _recent(np.tril(weights))[0, 10] == sum(range(11))


def test_times_are_of_the_work_at_hand():
    found = {
        "capture_seconds": 3.0,
        "steps": 100,
        "flush_seconds": [0.002, 0.004],
        "device_seconds": [0.001, 0.003],
    }
    assert thread.summary(found, 1.0, {"seconds": 50.0}) == {
        "thread_us_per_step": pytest.approx(20_000.0),
        "share_of_thread": pytest.approx(0.04),
        "flushes": 2,
        "thread_us_per_flush": pytest.approx(3_000.0),
        "device_us_per_flush": pytest.approx(2_000.0),
        "share_of_device": pytest.approx(0.004 / 50),
    }


def test_rows_of_tokens_that_nobody_got_are_not_lost():
    assert waiting.lost({"dropped_rows": {"not_delivered": 9, "buffers_full": 2, "device_behind": 1}}) == 3


def test_an_engine_is_taken_down_rung_by_rung_and_says_where_it_is():
    made = Ladder(lambda _: None, Health(), ("residual",))
    engine = object.__new__(program.Served)
    engine._watch = SimpleNamespace(ladders=[made])
    rungs = []
    for _ in range(3):
        for _ in range(500):  # as many as are timed on a rung
            made.begin_step()
        rungs.append(engine.fall()["rung"])
    assert rungs == ["PIECEWISE", "EAGER", ""]
    engine._watch = SimpleNamespace(ladders=[])
    assert engine.fall()["rung"] == ""


class _Falling:
    """An engine that has two rungs below the first."""

    def __init__(self):
        self.rungs = ["PIECEWISE", "EAGER", ""]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def work(self, batch, *_, **__):
        return {"ttft": [1.0] * batch, "tpot": [1.0] * batch, "seconds": 2.0, "tokens": batch}

    def state(self):
        return {"status": {"measured_rows": 5}}

    def fall(self):
        return {"rung": self.rungs.pop(0), "why": "no other"}


def test_each_rung_that_the_engine_has_is_timed_and_what_ends_the_ladder_is_said(monkeypatch):
    monkeypatch.setattr(ladder, "serving", lambda *_: _Falling())
    found = ladder.run(REHEARSAL)
    assert list(found) == ["in_graph", "piecewise", "eager", "below"]
    assert found["below"] == "no other"
    assert found["eager"]["tpot_ratio"] == 1.0


def test_nothing_may_wait_and_no_value_may_lack_where_graphs_are_replayed():
    waits = {one.key: one.bound for one in STEPS["waiting"].targets}
    assert waits["defaults.waits"] == waits["everything.waits"] == 0
    assert waits["everything.measured_rows"] == 1, "where nothing is measured nothing waits"
    of_replay = {one.key for one in STEPS["replay"].targets}
    assert {"attention.unmeasured_rows", "attention.stale_rows", "signals_off"} <= of_replay
    assert {f"{signal}.largest" for signal in FULL.tolerances} < {one.key for one in STEPS["parity"].targets}
    assert {"attention.entropy", "attention.sink_mass", "attention.recent_mass"} <= set(FULL.tolerances)

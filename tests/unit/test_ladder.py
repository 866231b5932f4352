"""Taps that do not fire at replay: the ladder goes down rung by rung, and what is measured then is right."""

import logging
from collections import Counter
from types import SimpleNamespace

import pytest

from introspan.capture.health import Health
from introspan.capture.rows import BURST
from introspan.capture.runner import v2_runner
from introspan.capture.runner.choice import follow
from introspan.capture.runner.ladder import EVERY, Ladder, Rung
from introspan.observation import Disabled
from tests.dispatching import step
from tests.laddered import LATE, TOGETHER_ROWS, Outcome, Served, serve

RUNNERS = pytest.mark.parametrize("runner", ["V1", "V2"])
SINCE = pytest.mark.parametrize(("runner", "since"), [("V1", 0), ("V2", 0), ("V2", 20)])
"""Silent in the first step, which is checked at once, or later, which only the device knows."""

UNAWARE = 20 + TOGETHER_ROWS + LATE + 1
"""Steps after which a tap that is silent from the twentieth on is known to be."""


@pytest.fixture(autouse=True)
def _logged(caplog):
    with caplog.at_level(logging.WARNING, "introspan"):
        yield


def places(outcome: Outcome, mode: str) -> list[int]:
    return [place for place, one in enumerate(outcome.modes) if one == mode]


def measured(outcome: Outcome) -> list[int]:
    return [position for position, is_measured in outcome.measured.items() if is_measured]


@RUNNERS
def test_taps_that_fire_leave_each_step_as_it_is(runner):
    outcome = serve(runner, "FULL_AND_PIECEWISE", [], 0, 100, {})
    assert measured(outcome) == list(range(100))
    assert set(outcome.modes) == {"FULL"}
    assert not outcome.disabled


@SINCE
def test_a_tap_that_full_graphs_lack_is_measured_between_pieces(runner, since, caplog):
    outcome = serve(runner, "FULL_AND_PIECEWISE", ["FULL"], since, UNAWARE + EVERY[Rung.PIECEWISE] + 9, {})
    assert outcome.rung == "PIECEWISE"
    lowered = places(outcome, "PIECEWISE")
    assert len(lowered) == 2 * BURST
    assert lowered[0] <= (UNAWARE if since else 2)
    assert lowered[BURST] == lowered[0] + EVERY[Rung.PIECEWISE]
    assert Counter(outcome.modes) == {"PIECEWISE": 2 * BURST, "FULL": len(outcome.modes) - 2 * BURST}
    assert measured(outcome)[-2 * BURST :] == lowered
    assert set(measured(outcome)) - set(lowered) <= set(range(since))
    assert not set(outcome.measured) & set(range(lowered[0] + BURST, lowered[BURST])), (
        "nothing is between bursts"
    )
    (entry,) = outcome.disabled.values()
    assert (entry.signal, entry.reason) == ("capture.full_graphs", "tap_silent")
    assert len(caplog.records) == 1, "said once"
    assert outcome.waits == 0


@SINCE
def test_a_tap_that_pieces_lack_too_is_measured_without_graphs(runner, since, caplog):
    silent = ["FULL", "PIECEWISE"]
    outcome = serve(runner, "FULL_AND_PIECEWISE", silent, since, 120, {})
    assert outcome.rung == "EAGER"
    without = places(outcome, "NONE")
    assert len(without) == BURST
    assert measured(outcome)[-BURST:] == without
    assert set(measured(outcome)) - set(without) <= set(range(since))
    assert list(outcome.disabled) == ["capture.full_graphs", "capture.graphs"]
    assert len(caplog.records) == 2


@RUNNERS
def test_an_engine_without_pieces_skips_that_rung(runner):
    outcome = serve(runner, "FULL_DECODE_ONLY", ["FULL"], 0, 100, {})
    assert measured(outcome) == places(outcome, "NONE")
    assert list(outcome.disabled) == ["capture.graphs"]


@SINCE
def test_a_tap_that_never_fires_is_off_and_all_else_is_measured_as_before(runner, since, caplog):
    outcome = serve(runner, "FULL_AND_PIECEWISE", ["FULL", "PIECEWISE", "NONE"], since, 200, {})
    assert set(measured(outcome)) <= set(range(since))
    assert list(outcome.disabled) == ["capture.full_graphs", "capture.graphs", "residual"]
    assert len(caplog.records) == 4, "three steps down, and why there is none below"
    assert "silent without graphs too" in caplog.text
    assert set(outcome.modes[-90:]) == {"FULL"}
    assert set(range(110, 200)) <= outcome.measured.keys(), "each row's output"


@SINCE
def test_workers_that_share_a_model_switch_it_off_at_once(runner, since, caplog):
    outcome = serve(runner, "FULL_AND_PIECEWISE", ["FULL"], since, 100, {"tensor_parallel_size": 2})
    assert set(outcome.modes) == {"FULL"}
    assert list(outcome.disabled) == ["residual"]
    assert list(outcome.measured) == list(range(100)), "each row's output"
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


def test_the_runner_that_is_followed_with_a_ladder_takes_its_steps_on_it():
    seen = []
    runner = SimpleNamespace(
        **dict.fromkeys(v2_runner.METHODS, seen.append),
        model=object(),
        req_states=None,
        execute_model=seen.append,
    )
    one, recorder = ladder(), Served("V2", "FULL", set(), 0).recorder
    config = SimpleNamespace(speculative_config=None, parallel_config=None)
    follow(runner, config, recorder, Health(), lambda _: None, batches_alternate=False, ladder=one)
    scheduled = step(1)
    runner.execute_model(scheduled)
    assert seen == [scheduled]
    assert one.steps == 1

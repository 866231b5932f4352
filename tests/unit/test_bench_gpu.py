"""`python -m bench.gpu` runs each step within its time, keeps what is finished, and writes only what a GPU gave."""

import importlib.util
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.gpu import device
from bench.gpu.__main__ import main
from bench.gpu.alternatives import beside
from bench.gpu.cost import compare
from bench.gpu.course import go
from bench.gpu.engines import Measured
from bench.gpu.fusion import patterns
from bench.gpu.interval import paired_ratio
from bench.gpu.page import missed, page
from bench.gpu.parity import difference
from bench.gpu.replay import stale
from bench.gpu.running import StepError, run
from bench.gpu.sameness import apart
from bench.gpu.scale import FULL, REHEARSAL
from bench.gpu.state import OtherConditionsError, State
from bench.gpu.steps import LIMIT_SECONDS, STEPS, Step
from bench.parts import Target

_STEP = Step(
    "speed", "bench.gpu.speed", "How fast?", targets=(Target("ratio_high", 1.01, at_most=True, unit=""),)
)
_DOCS = Path(__file__).parents[2] / "docs"
_WRITES = "import json, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(json.dumps({'ratio': 1.0}))"


def result(**values):
    return {"date": "2026-01-02", "seconds": 12.0, "values": values}


def test_a_machine_without_a_gpu_gets_one_line_and_exit_code_2_and_no_page(capsys):
    there = (_DOCS / "benchmarks-gpu.md").exists()
    assert main([], gpus=0) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert "no NVIDIA GPU" in line
    assert (_DOCS / "benchmarks-gpu.md").exists() == there


def test_where_there_is_no_driver_there_is_no_gpu():
    assert device.count("libcuda-of-nobody.so") == 0


def test_the_driver_is_asked_without_torch():
    code = "import sys, bench.gpu.__main__, bench.gpu.device; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=_DOCS.parent).returncode == 0


def test_finished_steps_are_not_run_again_and_failed_ones_are(tmp_path):
    ran = []

    def measure(step):
        ran.append(step.name)
        if ran == ["speed", "fails"]:
            raise StepError("ended with exit code 1")
        return result(ratio_high=1.0)

    steps = [_STEP, Step("fails", "bench.gpu.fails", "?")]
    conditions = {"device": "one"}
    for problems in (["fails ended with exit code 1"], []):
        assert go(steps, State(tmp_path, conditions), measure, lambda _: None, judge=True) == problems
    assert ran == ["speed", "fails", "fails"]


def test_a_missed_target_is_said_and_not_in_a_rehearsal(tmp_path):
    state = State(tmp_path, {})
    (sentence,) = go([_STEP], state, lambda _: result(ratio_high=1.2), lambda _: None, judge=True)
    assert sentence == "speed: ratio_high must be ≤ 1.01, got 1.2"
    assert go([_STEP], state, lambda _: result(), lambda _: None, judge=False) == []


def test_a_step_that_is_to_be_run_again_is_forgotten(tmp_path):
    state = State(tmp_path, {})
    state.keep("speed", result())
    state.forget("speed")
    assert state.finished() == {}


def test_results_of_another_machine_are_refused_with_what_differs(tmp_path):
    State(tmp_path, {"device": "one", "torch": "2.11"}).keep("speed", result())
    assert set(State(tmp_path, {"device": "one", "torch": "2.11"}).finished()) == {"speed"}
    with pytest.raises(OtherConditionsError, match="torch"):
        State(tmp_path, {"device": "one", "torch": "2.13"})


def test_a_result_that_was_half_written_is_none(tmp_path):
    state = State(tmp_path, {})
    (tmp_path / "step-speed.half").write_text('{"values"')
    assert state.finished() == {}


def test_a_step_gives_back_what_it_wrote():
    assert run([sys.executable, "-c", _WRITES], 60) == {"ratio": 1.0}


@pytest.mark.parametrize("code", ["import sys; sys.exit(3)", "pass"])
def test_a_step_that_fails_or_writes_nothing_has_no_result(code):
    with pytest.raises(StepError, match="exit code"):
        run([sys.executable, "-c", code], 60)


@pytest.mark.thorough
def test_a_step_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    child = tmp_path / "child"
    began = time.monotonic()
    with pytest.raises(StepError, match="longer than 2 s"):
        run(["bash", "-c", f"sleep 60 & echo $! > {child}; sleep 60"], 2)
    assert time.monotonic() - began < 30
    status = Path(f"/proc/{child.read_text().strip()}/stat")
    assert not status.exists() or status.read_text().split()[2] == "Z"


def test_the_interval_of_a_ratio_is_students_of_the_logarithms():
    found = paired_ratio("r", [2.0, 2.2, 1.8, 2.1], [1.0, 1.0, 1.0, 1.0])
    logs = np.log([2.0, 2.2, 1.8, 2.1])
    half = 3.182446 * logs.std(ddof=1) / 2
    assert found["r"] == pytest.approx(np.exp(logs.mean()))
    assert (found["r_low"], found["r_high"]) == pytest.approx(
        (np.exp(logs.mean() - half), np.exp(logs.mean() + half)), rel=1e-6
    )


def test_every_bound_of_the_promise_is_a_target():
    for model in ("8b", "1b"):
        for context, batches in (("512", (1, 16, 128)), ("8k", (1, 16))):
            for level, bound in (("defaults", 1.01), ("everything", 1.10)):
                wanted = {f"batch_{batch}.tpot_ratio_high": bound for batch in batches}
                targets = {one.key: one.bound for one in STEPS[f"cost-{model}-{context}-{level}"].targets}
                assert targets == wanted | {"memory.more_mib": 64}
    assert LIMIT_SECONDS <= 600
    assert {one.key: one.bound for one in STEPS["tokens"].targets} == {"differing_tokens": 0}


def test_every_step_has_a_module_and_what_it_is_given_exists_at_both_scales():
    for step in STEPS.values():
        assert importlib.util.find_spec(step.module)
        for scale in (FULL, REHEARSAL):
            known = {*scale.models, *scale.contexts, "defaults", "everything", "eager", "compiled"}
            assert set(step.arguments) <= known


def test_the_page_shows_values_beside_targets_and_what_is_not_finished():
    name = "cost-1b-512-defaults"
    values = {"batch_1": {"tpot_ratio_high": 1.25}, "batch_16": {"tpot_ratio_high": 1.001}}
    text = page({"conditions": {"device": "a card", "torch": "2.11.0"}, "steps": {name: result(**values)}})
    assert "Measured on: device a card, torch 2.11.0." in text
    assert "| batch_1.tpot_ratio_high | 1.25 | ≤ 1.01, **missed** |" in text
    assert "| batch_16.tpot_ratio_high | 1.001 | ≤ 1.01, met |" in text
    assert text.count("Not finished.") == len(STEPS) - 1
    assert any("batch_128" in sentence and "no value" in sentence for sentence in missed(STEPS[name], values))


def test_stored_results_were_measured_on_a_gpu_and_the_page_is_theirs():
    if not (_DOCS / "benchmarks-gpu.json").exists():
        assert not (_DOCS / "benchmarks-gpu.md").exists()
        return
    stored = json.loads((_DOCS / "benchmarks-gpu.json").read_text())
    assert "rehearsal" not in stored["conditions"]["device"]
    assert (_DOCS / "benchmarks-gpu.md").read_text() == page(stored)


class Clockwork:
    """An engine whose tokens take so many seconds each; notes when it is asked."""

    def __init__(self, seconds, name, asked):
        self.seconds, self.name, self.asked = seconds, name, asked

    def work(self, batch, context, tokens, seed):
        assert context == 8
        self.asked.append((self.name, seed))
        return {
            "ttft": [1.0] * batch,
            "tpot": [self.seconds] * batch,
            "seconds": 2.0,
            "tokens": batch * tokens,
        }


def test_engines_work_by_turns_and_each_is_first_as_often():
    asked = []
    engines = {"off": Clockwork(0.010, "off", asked), "on": Clockwork(0.011, "on", asked)}
    values = compare(engines, 2, 8, replace(REHEARSAL, repeats=4, tokens=6))
    assert values["tpot_ratio"] == values["tpot_ratio_high"] == pytest.approx(1.1)
    assert values["on"]["tpot_ms"] == pytest.approx(11.0)
    assert values["off"]["tokens_per_second"] == pytest.approx(6.0)
    timed = [name for name, seed in asked if seed > 0]
    assert timed[::2].count("on") == timed[::2].count("off") == 2
    assert [seed for _, seed in asked] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


class Broken:
    def work(self, *_, **__):
        raise RuntimeError("the engine ended with 1")


def test_a_way_that_ends_in_the_middle_costs_no_other_its_figures():
    engines = {
        "as_it_is": Clockwork(0.010, "a", []),
        "hooks": Broken(),
        "introspan": Clockwork(0.011, "i", []),
    }
    found = beside(engines, 2, 8, replace(REHEARSAL, repeats=2))
    assert found["hooks"] == "ended while it worked: the engine ended with 1"
    assert found["introspan"]["tpot_ratio"] == pytest.approx(1.1)


def test_answers_are_compared_up_to_the_first_token_that_differs():
    left = {"tokens": [[1, 2, 3], [4, 5, 6]], "logprobs": [[-1.0, -2.0, -3.0], [-1.0, -1.0, -1.0]]}
    right = {"tokens": [[1, 2, 3], [4, 9, 6]], "logprobs": [[-1.0, -2.5, -3.0], [-1.25, -7.0, -9.0]]}
    assert apart(left, right) == (1, 0.5)
    assert apart(left, left) == (0, 0.0)


def test_a_row_that_is_the_one_before_at_every_layer_is_stale():
    assert stale(np.array([[1.0, 2.0], [1.0, 2.5], [1.0, 2.5], [3.0, 4.0]], np.float32)) == 1


def test_patterns_are_counted_by_pass():
    log = (
        "DEBUG 01-02 [compilation/passes/fusion/allreduce_rms_fusion.py:1113] Replaced 32 patterns\n"
        "DEBUG 01-02 [compilation/passes/fusion/allreduce_rms_fusion.py:1113] Replaced 1 patterns\n"
        "DEBUG 01-02 [rms_quant_fusion.py:681] Replaced 4 patterns\n"
        "DEBUG 01-02 [other.py:1] nothing\n"
    )
    assert patterns(log) == {"allreduce_rms_fusion": 33, "rms_quant_fusion": 4}


def _measured(values):
    columns = [("attention.entropy", 1, 0, -1), ("attention.entropy", 1, 1, -1)]
    return Measured(columns, ["a", "b", "a"], np.array([5, 5, 4]), np.array(values, np.float32))


def test_values_are_compared_by_layer_and_head_in_order_of_position():
    expected = np.zeros((2, 2, 2))
    expected[:, 1] = [[1.0, 2.0], [3.0, 4.0]]
    measured = _measured([[3.0, 4.5], [9.0, 9.0], [1.0, 2.0]])
    assert difference(measured, "a", "attention.entropy", expected).tolist() == [0, 0, 0, 0.5]


def test_a_value_that_only_one_side_has_counts_and_a_missing_row_raises():
    expected = np.ones((2, 2, 2))
    off = difference(_measured([[1.0, np.nan], [9, 9], [1.0, 1.0]]), "a", "attention.entropy", expected)
    assert np.isnan(off).sum() == 1
    with pytest.raises(ValueError, match="2 rows"):
        difference(_measured([[1, 1], [9, 9], [1, 1]]), "a", "attention.entropy", np.ones((3, 2, 2)))

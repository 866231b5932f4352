"""`python -m bench.gpu --smoke`: a table of what works on a device, exit code 1 where anything does not."""

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.gpu.__main__ import main
from bench.gpu.checks import served, taps
from bench.gpu.checks.outcome import outcomes, same
from bench.gpu.engines import Measured
from bench.gpu.running import StepError
from bench.gpu.scale import FULL, REHEARSAL
from bench.gpu.smoke import OK, smoke
from bench.gpu.steps import SMOKE, Step

_ROOT = Path(__file__).parents[2]
_STEPS = [Step(name, f"bench.gpu.{name}", "?") for name in ("one", "two", "last")]

# A few of each kind: under the interpreter all of them take a minute.
_FEW = """
import sys
from bench.gpu.checks import attention, rows, outcome
from bench.gpu.scale import REHEARSAL
def few(checks):
    some = {name: check for name, check in checks.items() if any(part in name for part in sys.argv[1:])}
    assert some, list(checks)
    return outcome.outcomes(some)
attention.outcomes = rows.outcomes = few
"""


def test_every_check_is_in_the_table_and_one_that_failed_is_said_again_with_exit_code_1(capsys):
    given = {"one": {"a": OK}, "two": {"b": "AssertionError: 3 is not 4"}, "last": {"c": OK}}
    assert smoke(_STEPS, lambda step: given[step.name], at_once=1) == 1
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "a  ok",
        "b  FAILED  AssertionError: 3 is not 4",
        "c  ok",
        "2 of 3 checks are ok",
        "  failed: b",
    ]
    assert smoke(_STEPS, lambda step: {step.name: OK}, at_once=1) == 0


def test_a_process_that_dies_costs_its_own_checks_alone(capsys):
    def measure(step):
        if step.name == "one":
            raise StepError("ended with exit code -11")
        return {step.name: OK}

    assert smoke(_STEPS, measure, at_once=3) == 1
    said = capsys.readouterr().out
    assert "all of one  FAILED  ended with exit code -11" in said
    assert "2 of 3 checks are ok" in said


def test_the_engine_runs_when_nothing_else_does():
    running, seen = set(), []

    def measure(step):
        running.add(step.name)
        seen.append((step.name, len(running)))
        time.sleep(0.05)
        running.discard(step.name)
        return {step.name: OK}

    smoke(_STEPS, measure, at_once=3)
    assert seen[-1] == ("last", 1)
    assert list(SMOKE)[-1] == "served"


def test_a_check_that_raises_fails_with_what_it_said_and_those_after_it_are_run():
    def broken():
        raise RuntimeError("CUDA error:\n  an illegal\taddress")

    assert outcomes({"a": broken, "b": lambda: None}) == {
        "a": "RuntimeError: CUDA error: an illegal address",
        "b": OK,
    }


def test_numbers_that_are_apart_or_measured_on_one_side_alone_are_not_the_same():
    same(torch.tensor([1.0, torch.nan]), torch.tensor([1.00005, torch.nan]), 1e-4, "x")
    for found in ([1.1, torch.nan], [1.0, 2.0]):
        with pytest.raises(AssertionError, match="x"):
            same(torch.tensor(found), torch.tensor([1.0, torch.nan]), 1e-4, "x")


def test_every_step_of_the_smoke_has_a_module():
    for step in SMOKE.values():
        assert importlib.util.find_spec(step.module)


def test_a_machine_without_a_gpu_is_told_how_to_rehearse(capsys):
    assert main(["--smoke"], gpus=0) == 2
    assert "--rehearse" in capsys.readouterr().out


def test_taps_in_a_forward_that_is_run_again_are_ok_and_broken_ones_are_told(monkeypatch):
    assert set(taps.run(REHEARSAL).values()) == {OK}
    monkeypatch.setattr(taps._Decoder, "expected", lambda self: ([self.x + 1] * 4, [self.x] * 3))
    assert all(said.startswith("AssertionError: stream 0") for said in taps.run(REHEARSAL).values())


@pytest.mark.thorough
def test_kernels_are_held_against_torch_by_the_interpreter_and_one_that_is_off_fails():
    code = _FEW + (
        "print(attention.run(REHEARSAL), rows.run(REHEARSAL), file=sys.stderr)\n"
        "from dataclasses import replace\n"
        "true = attention.paged_statistics\n"
        "attention.paged_statistics = lambda *a: replace(true(*a), entropy=true(*a).entropy + 0.01)\n"
        "print(attention.run(REHEARSAL), file=sys.stderr)"
    )
    names = [
        "2BHNC fp8_e4m3",
        "streams bfloat16 33",
        "results",
        "logits float32 700",
        "draws float16 700",
        "projection float16 33",
    ]
    command = [sys.executable, "-W", "ignore", "-c", code, *names]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True).stderr
    assert done.count("'ok'") == len(names), done
    assert done.count("AssertionError: entropy") == 1, done


def _measured(ids, values):
    columns = [("attention.entropy", 1, 0, -1), ("attention.entropy", 1, 1, -1)]
    return Measured(columns, ids, np.arange(len(ids)), np.array(values, np.float32))


def test_a_signal_without_a_value_in_one_of_its_columns_is_not_there():
    served._has_values("attention.entropy", _measured(["a", "a"], [[1, np.nan], [np.nan, 2]]))
    with pytest.raises(AssertionError, match=r"1 of 2 columns, as \(1, 1, -1\)"):
        served._has_values("attention.entropy", _measured(["a", "a"], [[1, np.nan], [2, np.nan]]))
    with pytest.raises(AssertionError, match="not captured"):
        served._has_values("sampler.pit", _measured(["a"], [[1, 2]]))


def test_a_token_without_a_row_is_missed(monkeypatch):
    monkeypatch.setattr(served, "_REQUESTS", 1)
    served._has_rows({"a": [7, 8]}, _measured(["a", "a"], [[1, 2], [1, 2]]))
    with pytest.raises(AssertionError, match="a: 1 rows of 2 tokens"):
        served._has_rows({"a": [7, 8]}, _measured(["a"], [[1, 2]]))


def test_a_signal_that_was_switched_off_is_named_with_its_reason():
    off = {"signal": "attention", "reason": "self_check_failed", "detail": "apart"}
    well = {"disabled": [], "dropped_rows": {"not_delivered": 3}, "probe_errors": 0}
    served._is_well(well)
    with pytest.raises(AssertionError, match=r"attention \(self_check_failed\): apart"):
        served._is_well(well | {"disabled": [off]})
    with pytest.raises(AssertionError, match="device_behind"):
        served._is_well(well | {"dropped_rows": {"device_behind": 1}})


def test_a_wait_fails_with_its_line_and_an_engine_that_measured_nothing_fails_too():
    served._never_waits({"later": {}, "flush_seconds": [0.1]})
    with pytest.raises(AssertionError, match=r"probe\.py:3 7×"):
        served._never_waits({"later": {"probe.py:3": 7}, "flush_seconds": [0.1]})
    with pytest.raises(AssertionError, match="nothing was computed"):
        served._never_waits({"later": {}, "flush_seconds": []})


def test_half_of_the_requests_are_drawn_and_prompts_differ_in_length():
    asked = served.requests(50, 12)
    assert [one["params"]["temperature"] for one in asked].count(1.0) == 25
    assert len({len(one["prompt"]) for one in asked}) > 20
    assert max(max(one["prompt"]) for one in asked) < min(
        FULL.small["vocab_size"], REHEARSAL.small["vocab_size"]
    )

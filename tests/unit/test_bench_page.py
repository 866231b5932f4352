"""The page of benchmarks says what was measured, what was wanted, and whether it was met."""

import json
import subprocess
import sys

import pytest

from bench.page import missed, page
from bench.parts import PARTS, Part, Target

_PART = Part(
    "speed",
    "bench.speed",
    "How fast?",
    (
        Target("rows", 10_000, at_most=False, unit="rows/s"),
        Target("wait.p99_ms", 50, at_most=True, unit="ms"),
    ),
)


_RUNS = [f"{mode}.batch_{batch}" for mode in ("eager", "compiled") for batch in (1, 16)]
_WANTED = {
    "cost": {f"{run}.defaults.cpu_ratio_high": "≤ 1.01" for run in _RUNS}
    | {f"{run}.defaults.ours_ms_per_step": "≤ 0.5 ms" for run in _RUNS if run.endswith("_16")}
    | {f"{run}.everything.cpu_ratio": "≤ 1.15" for run in _RUNS},
    "latency": {"exported_to_idle_p999.high": "≤ 1.01", "exported_to_captured_p999.high": "≤ 1.01"},
    "ingest": {
        "saturated.rows_per_core_second": "≥ 10,000 rows/s",
        "saturated.acknowledgement_seconds_p99": "≤ 0.05 s",
        "ratio_to_otlp": "≥ 40",
    },
    "series": {
        "aggregate.rows_per_cpu_second": "≥ 40,000 rows/s",
        "cap.peak_mb": "≤ 300 MB",
        "cap.text.seconds_worst": "≤ 1 s",
        "cap.openmetrics.seconds_worst": "≤ 1 s",
    },
    "detection": {"rows.longest_advance_ms": "≤ 1,000 ms"},
}


@pytest.mark.parametrize("name", PARTS)
def test_every_bound_that_introspan_is_held_to_is_a_target(name):
    assert {target.key: str(target) for target in PARTS[name].targets} == _WANTED[name]


def test_targets_that_are_kept_are_not_reported():
    assert missed(_PART, {"rows": 10_000, "wait": {"p99_ms": 50.0}}) == []


def test_missed_target_is_reported_with_bound_and_value():
    (sentence,) = missed(_PART, {"rows": 20_000, "wait": {"p99_ms": 61.25}})
    assert sentence == "wait.p99_ms must be ≤ 50 ms, got 61.25"


def test_value_that_was_not_measured_misses_its_target():
    (sentence,) = missed(_PART, {"rows": 20_000})
    assert "wait.p99_ms" in sentence
    assert "not measured" in sentence


def test_page_shows_measured_value_beside_target_and_says_where_it_was_measured():
    name = "series"
    target = next(target for target in PARTS[name].targets if target.at_most)
    nested = {}
    at = nested
    *path, last = target.key.split(".")
    for step in path:
        at = at.setdefault(step, {})
    at[last] = target.bound * 2
    result = {"date": "2026-01-02", "hardware": "a machine", "versions": {"numpy": "2"}, "values": nested}
    text = page({name: result})
    assert f"| {target.key} | {target.bound * 2:.4g} | {target}, **missed** |" in text
    assert f"| [{name}](#{name}).{target.key} | {target.bound * 2:.4g} | {target}, **missed** |" in text
    assert "Measured on 2026-01-02: a machine; numpy 2." in text
    assert text.count("Not measured yet") == len(PARTS) - 1


def test_the_table_of_targets_has_every_one_also_of_what_was_not_measured():
    text = page({})
    for name, part in PARTS.items():
        for target in part.targets:
            assert f"| [{name}](#{name}).{target.key} | – | {target}, not measured |" in text


def test_unknown_part_is_refused_with_the_names_of_those_there_are():
    run = subprocess.run(
        [sys.executable, "-m", "bench", "--only", "nothing"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert all(name in run.stderr for name in PARTS)


def test_stored_results_belong_to_parts_that_exist(request):
    stored = request.config.rootpath / "docs" / "benchmarks.json"
    results = json.loads(stored.read_text()) if stored.exists() else {}
    assert set(results) <= set(PARTS)
    assert (stored.parent / "benchmarks.md").read_text() == page(results)

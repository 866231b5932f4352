import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from bench.faults import cache, layers, prompts, served, silence, small, started
from bench.faults.__main__ import merge, write
from bench.faults.page import missed, page
from bench.faults.parts import PARTS
from bench.faults.protocol import check_seal, digest
from bench.faults.result import Claim, Result, Table
from bench.faults.rows import CACHE, LAYER, NEUTRAL, ROWS, SMALL, TEXT
from bench.faults.second_protocol import check_second_seal
from bench.faults.store import Sample, Store
from bench.faults.third_protocol import check_third_seal
from bench.faults.tiny import CONTROL
from bench.faults.traffic_protocol import check_traffic_seal
from bench.faults.trial import Trial
from bench.faults.workplace import Workplace
from introspan_collector.detect.canary.answer import Answer, Outputs, States
from introspan_collector.detect.canary.comparison import Comparison
from introspan_collector.model import Origin

ORIGIN = Origin("bench", "m", "r", "f", "transformers", "1", "float32", 4, 4, "bench")


def answer(level: float) -> Answer:
    outputs = Outputs(
        3,
        np.arange(4),
        np.arange(4),
        np.full(4, level, np.float32),
        np.tile(np.arange(20, dtype=np.int32), (4, 1)),
        np.full((4, 20), level, np.float32),
    )
    states = States(np.array([2, 3]), np.full((2, 5, 33), level, np.float32), 0)
    return Answer("suite", "short", "0", 0, ORIGIN, outputs, states)


def sample(level: float) -> Sample:
    return Sample("int8", "layer 3", "float32", 3, is_other=True, rounds=[{"short": answer(level)}])


def comparison(layer: int | None, ratio: float = 20.0, kl_nats: float = 0.1) -> Comparison:
    return Comparison(
        ratio, ratio, (0.0, 0.0, 9.0, 9.0), 0.0, layer, f"layer {layer}", kl_nats, 0.9, 1, 0, has_states=True
    )


def trial(layer: int, named: int | None, family: str = "mis-scaled", **kept: float) -> Trial:
    found = comparison(named, **kept)
    return Trial(family, f"layer {layer}", "float32", layer, is_other=True, rounds=(found, found), tracked=())


def test_every_part_has_a_program_that_runs() -> None:
    for part in PARTS.values():
        assert callable(importlib.import_module(part.module).run), part.name


def test_the_page_has_a_section_for_each_part_measured_or_not() -> None:
    text = page({})
    for part in PARTS.values():
        assert f"## {part.name}\n" in text
        assert f"make bench-faults ONLY={part.name}" in text


def test_a_missed_target_is_shown_with_how_much_is_missing(tmp_path: Path) -> None:
    claims = [
        Claim("caught", 0.75, 0.95, low=0.6, high=0.9, row=LAYER),
        Claim("false", 0.0, 0.0, at_most=True, row=LAYER),
        Claim("by the way", 12_345.0, None),
    ]
    table = Table("Rows", ("a", "b"), [["x|y", 0.5], ["adds nothing", None]])
    found = write("layers", Result("1 of 2.", ["a note"], claims, [table]), tmp_path)
    text = (tmp_path / "detection-results.md").read_text()
    assert (
        f"| {LAYER} | caught | ≥ 0.95 | 0.75 | 0.6 to 0.9 | **missed by 0.2** | [layers](#layers) |" in text
    )
    assert "|  | false | ≤ 0 | 0 |  | met | [layers](#layers) |" in text
    assert "| by the way | 12,345 |  |" in text
    assert "| x\\|y | 0.5 |" in text
    assert "| adds nothing | – |" in text
    assert digest()[:16] in text
    # Nine parts have no results, in eighteen places of the table of faults.
    assert "1 of 20 targets are met, 1 are missed, 18 are not measured. 0 are measured in part" in text
    assert missed(found) == ["caught: **missed by 0.2**"]


def test_every_fault_of_the_table_is_at_the_top_measured_or_not() -> None:
    text = page({})
    for fault in ROWS:
        assert f"| {fault} | all that this part claims |  | – |  | **not measured** |" in text


def test_a_part_without_results_is_not_measured_beside_others_of_the_same_fault(tmp_path: Path) -> None:
    write("cache", Result("", [], [Claim("caught", 1.0, 0.9, row=CACHE)], []), tmp_path)
    text = (tmp_path / "detection-results.md").read_text()
    assert f"| {CACHE} | caught | ≥ 0.9 | 1 |  | met | [cache](#cache) |" in text
    for name in ("served", "started", "requests"):
        assert f"|  | all that this part claims |  | – |  | **not measured** | {name} |" in text


def test_every_part_with_results_has_claims_in_the_rows_that_it_names(request: pytest.FixtureRequest) -> None:
    stored = json.loads((request.config.rootpath / "docs" / "detection-results.json").read_text("utf-8"))
    for name, found in stored.items():
        claims = found["result"]["claims"]
        assert {one["row"] for one in claims if one["row"]} == set(PARTS[name].rows)


def test_what_internals_add_is_said_where_it_is_nothing_too(tmp_path: Path) -> None:
    gains = [
        Claim(name, middle, 0.0, low=low, high=high, row=LAYER, is_gain=True)
        for name, low, middle, high in (
            ("much", 0.1, 0.2, 0.3),
            ("nothing", -0.1, 0.1, 0.3),
            ("less", -0.3, -0.2, -0.1),
        )
    ]
    write("layers", Result("", [], gains, []), tmp_path)
    text = (tmp_path / "detection-results.md").read_text()
    assert "| much | 0.2 | 0.1 to 0.3 | add |" in text
    assert "| nothing | 0.1 | -0.1 to 0.3 | add nothing |" in text
    assert "| less | -0.2 | -0.3 to -0.1 | take away |" in text


def test_every_claim_belongs_to_a_row_of_the_table_of_faults() -> None:
    reports = (
        layers.report([]), prompts.report([]), small.report([], {}), cache.report([]), served.report({}),
        started.report({}), silence.report([]),
    )  # fmt: skip
    for found in reports:
        assert found.claims
        assert {claim.row for claim in found.claims} <= set(ROWS)


def test_what_was_not_measured_is_not_met() -> None:
    assert not Claim("nothing", None, 0.0).is_met
    assert not Claim("nothing", float("nan"), 0.0, at_most=True).is_met


def test_parts_are_stored_apart_and_merged(tmp_path: Path) -> None:
    for name in ("small", "layers"):
        write(name, Result(name, [], [Claim("far", float("inf"), None)], []), tmp_path)
    (tmp_path / "detection-results.json").unlink()
    merge(tmp_path)
    merged = json.loads((tmp_path / "detection-results.json").read_text())
    assert list(merged) == ["layers", "small"]
    assert "small" in (tmp_path / "detection-results.md").read_text()


def test_answers_that_are_kept_are_the_same(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("int8, layer 3", sample(0.25))
    found = Store(tmp_path)["int8, layer 3"]
    assert (found.family, found.name, found.layer, found.is_other) == ("int8", "layer 3", 3, True)
    kept = found.rounds[0]["short"]
    assert kept.states is not None
    np.testing.assert_array_equal(kept.states.values, np.full((2, 5, 33), 0.25, np.float32))
    np.testing.assert_array_equal(kept.outputs.top_token, np.tile(np.arange(20), (4, 1)))


def test_a_run_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    asked = []

    def run(key: str, *, fails: bool) -> Sample:
        asked.append(key)
        if fails:
            raise KeyboardInterrupt
        return sample(0.5)

    def attempt(*, fails: bool) -> None:
        workplace = Workplace(Progress(disable=True), 1.0, folder=tmp_path)
        keys = ("one", "two", "three")
        workplace.samples(
            "x", "float32", [(key, lambda key=key: run(key, fails=fails and key == "two")) for key in keys]
        )

    with pytest.raises(KeyboardInterrupt):
        attempt(fails=True)
    attempt(fails=False)
    assert asked == ["three", "two", "two", "one"]


def test_a_dtype_that_is_not_asked_for_is_read_and_not_run(tmp_path: Path) -> None:
    workplace = Workplace(Progress(disable=True), 1.0, dtypes=(), folder=tmp_path)
    Store(tmp_path / "x-float32").put("one", sample(0.5))

    def never() -> Sample:
        raise AssertionError

    assert len(workplace.samples("x", "float32", [("one", never), ("two", never)])) == 1


@pytest.mark.parametrize("check", [check_seal, check_second_seal, check_traffic_seal, check_third_seal])
def test_the_protocol_is_the_one_written_down(check: Callable[..., None], tmp_path: Path) -> None:
    check()
    other = tmp_path / "protocol.sha256"
    other.write_text("0" * 64)
    with pytest.raises(ValueError, match="write the new one there and"):
        check(other)


def test_scale_takes_fewer_faults_or_draws_more() -> None:
    assert len(layers.changes(1.0)) == 90
    assert {change.layer for change in layers.changes(1.0)} == set(range(30))
    assert len(layers.changes(0.2)) == 18
    assert len(layers.changes(2.0)) == 180
    few, usual, many = (len(small.changes(Path(), scale)) for scale in (0.25, 1.0, 2.0))
    assert few < usual < many


def test_only_exactly_the_damaged_layer_counts_as_named() -> None:
    found = layers.report([trial(3, 3), trial(5, 6), trial(7, 7, ratio=2.0)])
    by_text = {claim.text: claim.measured for claim in found.claims}
    assert by_text["float32: material faults that page within two rounds (2 of 3)"] == pytest.approx(2 / 3)
    assert by_text["float32: exact layer named, of alarms (1 of 2)"] == 0.5
    assert by_text["float32: paged and exact layer named, of material faults (1 of 3)"] == pytest.approx(
        1 / 3
    )
    listed = next(table for table in found.tables if table.title.startswith("Material faults that did not"))
    assert {row[2] for row in listed.rows} == {"layer 5", "layer 7"}


def test_what_does_not_change_the_output_is_not_held_against_the_alarm() -> None:
    found = layers.report([trial(3, 3), trial(5, None, ratio=1.0, kl_nats=1e-4)])
    assert found.claims[0].measured == 1.0
    (of_all,) = [
        claim
        for claim in found.claims
        if claim.text.startswith("float32: paged and exact layer named, of all")
    ]
    assert of_all.measured == 0.5
    (note,) = [note for note in found.notes if note.startswith("Missed of all faults")]
    assert "1 do not page, of which 1 are immaterial (mean KL < 0.01 nats, at most 0.0001)" in note


def test_a_round_off_by_another_cause_is_not_told_by_consistency() -> None:
    def one(consistency: float) -> Trial:
        found = replace(comparison(3), consistency_ratio=consistency)
        return Trial("stale", "", "float32", None, is_other=False, rounds=(found, found), tracked=())

    any_cause, alone, _ = cache.report([one(2.0), one(9.0)]).claims
    assert any_cause.measured == 1.0
    assert alone.measured == 0.5
    assert alone.text == "the same by consistency alone (1 of 2: float32 1 of 2)"


def test_neutral_changes_are_to_be_called_equivalent_in_each_dtype() -> None:
    def one(dtype: str, *, equivalent: bool) -> Trial:
        found = comparison(None, ratio=1.0, kl_nats=1e-5 if equivalent else 0.1)
        found = replace(found, top1=1.0 if equivalent else 0.95)
        family = "neutral: heads permuted"
        return Trial(family, "", dtype, None, is_other=True, rounds=(found, found), tracked=())

    found = small.report([one("bfloat16", equivalent=False), one("float32", equivalent=True)], {})
    some = [claim for claim in found.claims if "called equivalent" in claim.text]
    called = {claim.text.partition(";")[0]: claim.measured for claim in some}
    assert called == {
        "bfloat16: neutral changes called equivalent (0 of 1)": 0.0,
        "float32: neutral changes called equivalent (1 of 1)": 1.0,
    }
    assert any(note.startswith("Missed: 0 of 1 neutral changes") for note in found.notes)


def test_a_part_of_which_nothing_has_run_misses_its_targets() -> None:
    reports = (
        layers.report([]),
        prompts.report([]),
        small.report([], {}),
        cache.report([]),
        served.report({}),
        started.report({}),
    )
    for found in reports:
        assert any(not claim.is_met for claim in found.claims)
        assert found.complete.startswith("0 of")


def test_a_dtype_that_was_not_measured_is_not_passed_over() -> None:
    found = layers.report([trial(3, 3)])
    assert [claim.measured for claim in found.claims if claim.text.startswith("bfloat16")] == [None] * 5


def test_part_of_a_run_meets_no_target() -> None:
    found = layers.report([trial(3, 3)])
    assert found.claims[0].measured == 1.0
    assert not found.claims[0].is_complete
    whole = layers.report([trial(i % 30, i % 30) for i in range(90)])
    assert whole.claims[0].is_complete


def test_a_claim_on_part_of_a_run_is_neither_shown_as_met_nor_passed_over(tmp_path: Path) -> None:
    claim = Claim("caught", 1.0, 0.9, is_complete=False, row=LAYER)
    found = write("layers", Result("", [], [claim], []), tmp_path)
    assert "kept so far, **incomplete**" in (tmp_path / "detection-results.md").read_text()
    assert len(missed(found)) == 1


def _scored(control: float) -> tuple[list[Trial], dict[str, np.ndarray]]:
    def one(family: str, ratio: float, *, is_other: bool) -> Trial:
        found = comparison(None, ratio=ratio)
        tracked = (np.full((4, 20), ratio),) * 2
        return Trial(family, "", "bfloat16", None, is_other=is_other, rounds=(found, found), tracked=tracked)

    healthy = [one("healthy", level, is_other=False) for level in (1.0, 1.1, 1.2, 1.3)]
    changed = [one("noise", 5.0, is_other=True)] * 3
    return [*healthy, *changed, one(CONTROL, control, is_other=False)], {"bfloat16": np.zeros((4, 20))}


def test_areas_are_void_where_the_healthy_model_is_told_apart_in_the_same_batches() -> None:
    def claims(control: float) -> list[Claim]:
        return [
            one
            for one in small.report(*_scored(control)).claims
            if one.text.startswith("bfloat16: AUC") or one.is_gain
        ]

    assert [one.measured for one in claims(1.0)] == [0.0, 1.0, 0.0]
    (void,) = claims(4.0)
    assert void.measured is None
    assert "void, as the control has 1.00" in void.text


def test_a_template_is_to_be_told_at_once_and_a_cache_in_every_round() -> None:
    def rounds(*ratios: float) -> list[dict]:
        def one(ratio: float) -> dict:
            told = None if ratio > 100 else ratio  # the API's infinity
            return {"deviates": ratio > 8, "ratio": told, "consistency_ratio": ratio, "output_ratio": told,
                    "layer_ratios": [1.0], "place": "", "kl_nats": told}  # fmt: skip

        return [one(ratio) for ratio in ratios]

    found = served.report({"kv-stale": rounds(1.0, 9.0), "chat template": rounds(900.0, 1.0)})
    assert [claim.measured for claim in found.claims] == [0.0, 1.0]
    assert not found.claims[0].is_complete


def test_a_neutral_checkpoint_may_deviate_but_not_page_and_positions_have_to_matter_at_once() -> None:
    def rounds(*, equivalent: bool) -> list[dict]:
        one = {"deviates": True, "equivalent": equivalent, "ratio": 9.0, "consistency_ratio": 0.0, "output_ratio": 9.0,
               "layer_ratios": [9.0], "place": "layer 1", "kl_nats": 1e-5, "top1": 1.0}  # fmt: skip
        return [one, one]

    def measured(*, equivalent: bool) -> dict[str, float]:
        names = ("int8, layer 15", "neutral: heads permuted, layer 14", "RoPE θ × 10")
        found = started.report({name: rounds(equivalent=equivalent) for name in names})
        return {claim.row: claim.measured for claim in found.claims if claim.measured is not None}

    assert measured(equivalent=True) == {SMALL: 1.0, NEUTRAL: 0.0, TEXT: 0.0}
    assert measured(equivalent=False) == {SMALL: 1.0, NEUTRAL: 1.0, TEXT: 1.0}


def test_outputs_alone_that_page_too_leave_internals_nothing_to_add() -> None:
    found = layers.report([trial(3, 3), trial(5, 5)])
    (gain,) = [claim for claim in found.claims if claim.is_gain and claim.measured is not None]
    assert (gain.measured, gain.low, gain.high) == (0.0, 0.0, 0.0)


def test_no_trial_is_begun_when_the_time_is_over(tmp_path: Path) -> None:
    begun = []

    def one(key: str) -> Sample:
        begun.append(key)
        return sample(0.5)

    workplace = Workplace(Progress(disable=True), 1.0, folder=tmp_path, is_over=lambda: len(begun) == 1)
    found = workplace.samples("x", "float32", [(key, lambda key=key: one(key)) for key in ("one", "two")])
    assert len(found) == len(begun) == 1


def test_the_stored_page_is_made_of_the_stored_results(request: pytest.FixtureRequest) -> None:
    docs = request.config.rootpath / "docs"
    stored = json.loads((docs / "detection-results.json").read_text("utf-8"))
    assert set(stored) <= set(PARTS)
    assert (docs / "detection-results.md").read_text("utf-8") == page(stored)

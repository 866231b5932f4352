"""The probe of attention on a device, interpreted, against that of a host, on the same rows, keys and outputs."""

import numpy as np
import pytest
import torch

from introspan.capture.attention.statistics import Scoring
from tests.device_attention import HEADS, Course, Layer

STEPS = [[([0, 1], [15, 40]), ([1, 0], [41, 16])], [([2, 0, 1], [1, 17, 42])]]
FORMS = {
    "window": Scoring(0.3, window=20),
    "softcap": Scoring(0.5, softcap=4.0),
    "alibi": Scoring(0.3, alibi_slopes=torch.linspace(0.01, 0.3, HEADS)),
    "sinks": Scoring(0.3, sinks=torch.linspace(-2.0, 4.0, HEADS)),
}


def _same(found, *, entropy=1e-4, mass=2e-5):
    for host, device in zip(found.host, found.device, strict=True):
        third = host.shape[1] // 3
        np.testing.assert_allclose(device[:, :third], host[:, :third], atol=entropy, rtol=0)
        np.testing.assert_allclose(device[:, third:], host[:, third:], atol=mass, rtol=0)
        assert not np.isnan(device[:, :third]).any()


def _run(interpreter, course):
    return interpreter.call("tests.device_attention", "run", course)[0]


# The others differ from these in strides alone: test_kernels_attention.py has them all.
@pytest.mark.parametrize("name", ["LBHNC", "BLNHC", "before_blocks_NHD"])
def test_rows_have_the_values_that_a_host_measures_wherever_keys_lie(interpreter, name):
    found = _run(interpreter, Course(STEPS, layout=name))
    assert found.disabled == []
    _same(found)


@pytest.mark.parametrize(
    "name", ["LBNHC", "behind_blocks_HND"]
)  # FlashInfer's says None where there is no cap
def test_layers_that_score_in_ways_of_their_own_are_told_apart(interpreter, name):
    layers = [Layer(), Layer(group=1), *(Layer(form) for form in FORMS.values()), Layer()]
    found = _run(interpreter, Course([[([1, 0], [17, 42])]], layers, layout=name))
    assert found.disabled == []
    _same(found)


@pytest.mark.parametrize(
    ("dtype", "quantises"), [("fp8_e4m3", False), ("fp8_e4m3", True), ("fp8_e5m2", True)]
)
def test_keys_of_eight_bits_count_as_they_are_scaled(interpreter, dtype, quantises):
    found = _run(interpreter, Course(STEPS, dtype=dtype, quantises=quantises))
    assert found.disabled == []
    _same(found)


def test_an_id_of_the_engines_tables_may_stand_for_several_blocks(interpreter):
    found = _run(interpreter, Course(STEPS, [Layer(), Layer(group=1)], divided=2))
    assert found.disabled == []
    _same(found)


@pytest.mark.parametrize("says", [8, 24])
def test_an_engine_whose_ids_stand_for_no_whole_blocks_of_the_cache_is_refused(interpreter, says):
    found = _run(interpreter, Course(STEPS, says=says))
    ((signal, reason, detail),) = found.disabled
    assert (signal, reason) == ("attention", "unsupported_cache")
    assert f"stands for {says} keys, a block of the cache holds 16" in detail
    assert np.isnan(np.concatenate(found.device)).all()


@pytest.mark.parametrize("takes_late", [False, True])
def test_keys_that_are_not_the_backends_switch_attention_off_and_no_row_is_handed_on(interpreter, takes_late):
    steps = [[([0], [20])], [([0], [21]), ([1], [5])], [([0, 1], [22, 6])]]
    layers = [Layer(), Layer(group=1)]
    found = _run(interpreter, Course(steps, layers, spoilt=(1, 1), takes_late=takes_late))
    (said,) = found.disabled
    assert said[:2] == ("attention", "self_check_failed")
    assert "layer 1" in said[2]
    assert not np.isnan(found.device[0]).any() or takes_late
    assert np.isnan(found.device[1]).all()
    assert np.isnan(found.device[2]).all(), "launched before it was known, or not at all"


def test_a_backend_that_rounds_its_weights_to_eight_bits_is_checked_all_the_same(interpreter):
    found = _run(interpreter, Course([[([0], [20])]], dtype="fp8_e4m3", quantises=True, spoilt=(0, 0)))
    assert [said[1] for said in found.disabled] == ["self_check_failed"]
    assert np.isnan(found.device[0]).all()


def test_outputs_are_looked_at_until_eight_rows_have_been_found_right(interpreter):
    steps = [[([0, 1], [n, n]) for n in range(20, 24)], [([0], [24])], [([0], [25])]]
    found = _run(interpreter, Course(steps, spoilt=(0, 1)))
    assert found.disabled == [], "rows nine and ten are not checked"
    assert not np.isnan(np.concatenate(found.device)).any()


@pytest.mark.parametrize(("seen", "is_checked"), [(9_998, True), (9_000, False)])
def test_one_row_in_ten_thousand_is_looked_at(interpreter, seen, is_checked):
    found = _run(interpreter, Course([[([0], [20]), ([0, 1], [21, 5])]], seen=seen, spoilt=(0, 0)))
    assert [said[1] for said in found.disabled] == ["self_check_failed"] * is_checked
    assert bool(np.isnan(found.device[0]).all()) == is_checked


def test_rows_launched_before_a_check_was_known_to_fail_are_not_handed_on(interpreter):
    steps = [[([0], [20])], [([0], [21])]]
    found = _run(interpreter, Course(steps, seen=9_999, spoilt=(0, 0), takes_late=True))
    assert [said[1] for said in found.disabled] == ["self_check_failed"]
    assert np.isnan(np.concatenate(found.device)).all(), "the second was not checked itself"


def test_what_has_not_come_yet_has_checked_nothing(interpreter):
    steps = [[([0, 1], [n, n]) for n in range(20, 24)], [([0], [24])]]
    found = _run(interpreter, Course(steps, spoilt=(0, 1), takes_late=True))
    assert [said[1] for said in found.disabled] == ["self_check_failed"]


def test_layers_that_do_not_pass_their_taps_are_told_and_their_rows_have_no_values(interpreter):
    steps = [[([0], [20])], [([0], [21])], [([0], [22])]]
    found = _run(interpreter, Course(steps, [Layer(), Layer()], silent=(1, 1)))
    assert (found.disabled, found.silent) == ([], [[1]])
    assert np.isnan(found.device[1]).all()
    assert not np.isnan(found.device[0]).any()
    assert not np.isnan(found.device[2]).any(), "what was said before is not said again"


@pytest.mark.parametrize(("dtype", "bytes_each"), [("float32", 4), ("fp8_e4m3", 1)])
def test_rows_beyond_the_budget_are_counted_and_not_measured(interpreter, dtype, bytes_each):
    course = Course([[([0, 1, 2], [30, 30, 1])]], dtype=dtype, budget_bytes=60 * 2 * 32 * bytes_each)
    found = _run(interpreter, course)
    assert found.skipped == 1
    assert np.isnan(found.device[0]).all(axis=1).tolist() == [False, False, True]

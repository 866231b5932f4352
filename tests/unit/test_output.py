"""Output signals against the softmax written out in float64."""

import math

import numpy as np
import pytest

from introspan.capture.output.vocabulary import Vocabulary


def naive(logits, token):
    """entropy, margin, logprob of one row. logits: float64 [V]."""
    p = np.exp(logits - logits.max())
    p /= p.sum()
    two = np.sort(p)[-2:]
    return (
        -sum(x * math.log(x) for x in p if x > 0),
        two[1] - two[0],
        math.log(p[token]) if p[token] else -math.inf,
    )


def statistics(logits, token):
    return Vocabulary(len(logits)).statistics(np.array(logits, np.float32), token)


@pytest.mark.parametrize(("scale", "offset"), [(0.0, 0.0), (1.0, 0.0), (5.0, 1e3), (30.0, -1e3)])
def test_output_statistics_are_those_of_the_softmax(scale, offset):
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(4, 3000)) * scale + offset).astype(np.float32)
    vocabulary = Vocabulary(3000)
    for row, token in zip(rows, [0, 17, 2999, int(rows[3].argmax())], strict=True):
        found = vocabulary.statistics(row, token)
        expected = naive(row.astype(np.float64), token)
        assert (found.entropy, found.margin, found.logprob) == pytest.approx(expected, abs=3e-5)
        assert found.nonfinite == 0


def test_tied_leaders_have_no_margin():
    assert statistics([1.0, 3.0, 3.0, 0.0], 1).margin == 0


def test_logits_are_left_as_they_were():
    logits = np.random.default_rng(1).normal(size=100).astype(np.float32)
    before = logits.copy()
    vocabulary = Vocabulary(100)
    vocabulary.statistics(logits, 1)
    vocabulary.weights(0.5)
    assert np.array_equal(logits, before)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_weights_are_those_of_the_row_at_hand(temperature):
    rng = np.random.default_rng(2)
    vocabulary = Vocabulary(100)
    for _ in range(2):
        logits = rng.normal(size=100).astype(np.float32)
        vocabulary.statistics(logits, 1)
        expected = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
        assert vocabulary.weights(temperature).numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_are_counted_and_their_row_is_not_measured(value):
    rows = np.random.default_rng(3).normal(size=(3, 100)).astype(np.float32)
    rows[1, [4, 50]] = value
    vocabulary = Vocabulary(100)
    found = [vocabulary.statistics(row, 4) for row in rows]
    assert [each.nonfinite for each in found] == [0, 2, 0]
    for signal in ("entropy", "margin", "logprob"):
        assert [math.isnan(getattr(each, signal)) for each in found] == [False, True, False]


def test_minus_infinity_has_probability_zero_and_is_no_fault_unless_all_is():
    logits = np.random.default_rng(4).normal(size=100).astype(np.float32)
    expected = naive(np.delete(logits.astype(np.float64), [3, 4]), 10)
    logits[[3, 4]] = -math.inf
    found = statistics(logits, 12)
    assert found.nonfinite == 0
    assert (found.entropy, found.margin, found.logprob) == pytest.approx(expected, abs=1e-5)
    assert statistics(logits, 3).logprob == -math.inf


def test_a_row_without_any_possible_token_is_not_measured():
    found = statistics([-math.inf] * 10, 3)
    assert math.isnan(found.entropy)
    assert found.nonfinite == 10

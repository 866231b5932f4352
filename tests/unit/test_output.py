"""Output signals against the softmax written out in float64."""

import math

import numpy as np
import pytest
import torch

from introspan.capture.output import output_statistics


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("scale", "offset"), [(0.0, 0.0), (1.0, 0.0), (5.0, 1e3), (30.0, -1e3)])
def test_output_statistics_are_those_of_the_softmax(scale, offset, dtype):
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(4, 3000, generator=generator) * scale + offset).to(dtype)
    tokens = torch.tensor([0, 17, 2999, int(logits[3].argmax())])
    found = output_statistics(logits, tokens)
    for row in range(4):
        expected = naive(logits[row].double().numpy(), int(tokens[row]))
        measured = [float(x[row]) for x in (found.entropy, found.margin, found.logprob)]
        assert measured == pytest.approx(expected, abs=3e-5)
    assert not found.nonfinite.any()


def test_tied_leaders_have_no_margin():
    assert output_statistics(torch.tensor([[1.0, 3.0, 3.0, 0.0]]), torch.tensor([1])).margin.item() == 0


def test_logits_are_left_as_they_were():
    logits = torch.randn(3, 100)
    before = logits.clone()
    output_statistics(logits, torch.tensor([1, 2, 3]))
    assert torch.equal(logits, before)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_are_counted_and_their_row_is_not_measured(value):
    logits = torch.randn(3, 100, generator=torch.Generator().manual_seed(1))
    logits[1, [4, 50]] = value
    found = output_statistics(logits, torch.tensor([4, 4, 4]))
    assert found.nonfinite.tolist() == [0, 2, 0]
    for signal in (found.entropy, found.margin, found.logprob):
        assert signal.isnan().tolist() == [False, True, False]


def test_minus_infinity_is_counted_and_has_probability_zero():
    logits = torch.randn(2, 100, generator=torch.Generator().manual_seed(2))
    expected = naive(np.delete(logits[1].double().numpy(), [3, 4]), 10)
    logits[1, [3, 4]] = -math.inf
    found = output_statistics(logits, torch.tensor([0, 12]))
    assert found.nonfinite.tolist() == [0, 2]
    assert [found.entropy[1], found.margin[1], found.logprob[1]] == pytest.approx(expected, abs=1e-5)
    assert output_statistics(logits, torch.tensor([0, 3])).logprob[1] == -math.inf

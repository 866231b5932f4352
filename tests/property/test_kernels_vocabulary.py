"""The kernel of logits, interpreted, against the function that reads them row by row on a CPU."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from introspan.capture.output.vocabulary import Vocabulary

EXAMPLES = settings(max_examples=30, deadline=None)


@st.composite
def logits(draw):
    """Rows of logits as models give them: sharp, flat, masked, equal, broken."""
    rows, size = draw(st.integers(1, 3)), draw(st.sampled_from([2, 700, 1024, 2500]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    z = torch.randn(rows, size, generator=generator) * draw(st.sampled_from([0.1, 3.0, 40.0]))
    odd = draw(st.sampled_from(["plain", "masked", "all masked", "equal", "nan", "infinite", "lowest"]))
    if odd in {"masked", "lowest"}:
        least = -math.inf if odd == "masked" else torch.finfo(dtype).min
        z[0, torch.rand(size, generator=generator) < 0.5] = least
        z[0, 0] = 1.0
    elif odd == "all masked":
        z[0] = -math.inf
    elif odd == "equal":
        z[0] = 2.0
    elif odd != "plain":
        z[0, 1] = {"nan": math.nan, "infinite": math.inf}[odd]
    tokens = torch.randint(size, (rows,), generator=generator)
    return z.to(dtype), tokens


@EXAMPLES
@given(case=logits())
def test_output_signals_are_those_of_the_function_of_one_row(interpreter, case):
    z, tokens = case
    found = interpreter.call("vocabulary", "vocabulary_statistics", z, tokens)[0]
    vocabulary = Vocabulary(z.shape[1])
    for row, token in enumerate(tokens.tolist()):
        expected = vocabulary.statistics(z[row].float().numpy(), token)
        for name, tolerance in (("entropy", 1e-4), ("margin", 1e-5), ("logprob", 1e-4), ("nonfinite", 0.0)):
            actual = float(getattr(found, name)[row])
            np.testing.assert_allclose(
                actual, getattr(expected, name), atol=tolerance, rtol=1e-6, err_msg=name
            )


def test_a_runner_up_that_the_leaders_lane_sees_is_found(interpreter):
    z = torch.zeros(1, 2500)
    z[0, 5], z[0, 5 + 1024] = 3.0, 2.5
    found = interpreter.call("vocabulary", "vocabulary_statistics", z, torch.tensor([5]))[0]
    p = z[0].softmax(dim=0)
    assert math.isclose(found.margin.item(), float(p[5] - p[1029]), rel_tol=1e-4)


def test_a_token_outside_the_vocabulary_has_no_probability_and_nothing_is_read_for_it(interpreter):
    found = interpreter.call(
        "vocabulary", "vocabulary_statistics", torch.zeros(2, 8), torch.tensor([-1, 2**40])
    )[0]
    assert found.logprob.isnan().all()
    assert torch.allclose(found.entropy, torch.full([2], math.log(8)))

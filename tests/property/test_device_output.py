"""The output probe of a device, interpreted, against that of a host: the same rows, tokens and parameters."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from introspan.capture.output.sampler import Sampling
from tests.device_output import LAYOUT, Rows

TOLERANCE = {"output.entropy": 1e-4, "output.margin": 1e-5, "output.logprob": 1e-4, "output.nonfinite": 0.0}
NOT_REPRODUCED = Sampling(0.8, 0, 1.0, 0.0, reproducible=False)
U, MISMATCH = LAYOUT.blocks["sampler.pit"].start, LAYOUT.blocks["sampler.greedy_mismatch"].start

# Not nearer to 1: the host adds up in float32 what may go, and of 1 − p little is left of that.
SAMPLING = st.one_of(
    st.none(),
    st.just(NOT_REPRODUCED),
    st.sampled_from([0.3, 1.0]).map(lambda t: Sampling(t, 0, 1.0, 0.0, reproducible=True)),
    st.sampled_from([0.0, 1e-6]).map(lambda t: Sampling(t, 5, 0.5, 0.1, reproducible=True)),
    st.builds(
        partial(Sampling, reproducible=True),
        temperature=st.sampled_from([0.3, 1.0, 1.7]),
        top_k=st.sampled_from([-1, 0, 1, 3, 20, 10_000]),
        top_p=st.sampled_from([1.0, 1.0, 1e-9, 0.0]) | st.floats(0.05, 0.95),
        min_p=st.sampled_from([0.0, 0.0, 0.05, 0.6, 1.0]),
    ),
)
ODD = st.sampled_from(["plain", "plain", "masked", "all masked", "equal", "few", "nan", "infinite", "lowest"])


def odd_logits(z: torch.Tensor, odd: str, generator: torch.Generator) -> torch.Tensor:
    """A row as models give it: sharp, masked, tied, broken."""
    if odd in {"masked", "lowest"}:
        hidden = torch.rand(z.shape, generator=generator) < 0.5
        z[hidden] = -math.inf if odd == "masked" else torch.finfo(torch.bfloat16).min
        z[0] = 1.0
    elif odd == "all masked":
        z[:] = -math.inf
    elif odd == "equal":
        z[:] = 2.0
    elif odd == "few":
        z[:] = z.round().clamp(-2, 2)
    elif odd != "plain":
        z[-1] = {"nan": math.nan, "infinite": math.inf}[odd]
    return z


@st.composite
def steps(draw: st.DrawFn) -> list[Rows]:
    """A few steps over one vocabulary."""
    size = draw(st.sampled_from([2, 40, 300]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    dtype, made = draw(st.sampled_from([torch.float32, torch.bfloat16])), []
    for _ in range(draw(st.integers(1, 2))):
        count = draw(st.integers(1, 3))
        z = torch.randn(count, size, generator=generator) * draw(st.sampled_from([0.1, 3.0, 40.0]))
        z = z.bfloat16().float()  # what differs does so by more than exponentials are rounded by
        z = torch.stack([odd_logits(row, draw(ODD), generator) for row in z]).to(dtype)
        ranks = st.sampled_from([0, 0, 1, 2, 3, 19, 20, size // 2, size - 1])
        tokens = [int(row.argsort(descending=True)[min(draw(ranks), size - 1)]) for row in z]
        made.append(
            Rows(
                z,
                tokens,
                draw(st.lists(st.booleans(), min_size=count, max_size=count)),
                [draw(SAMPLING) for _ in tokens],
                draw(st.permutations(range(count))),
            )
        )
    return made


def one(z: torch.Tensor, tokens: list[int], sampling: list[Sampling]) -> list[Rows]:
    """A step in which all is measured."""
    return [Rows(z, tokens, [True] * len(tokens), sampling)]


def measured(interpreter, rows, *arguments):
    return interpreter.call("tests.device_output", "measured", rows, 256, *arguments)[0]


@settings(max_examples=40, deadline=None)
@given(rows=steps())
def test_a_device_measures_of_logits_and_sampler_what_a_host_does(interpreter, rows):
    found = measured(interpreter, rows)
    for name, block in LAYOUT.blocks.items():
        actual, expected = found.device[:, block], found.host[:, block]
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=TOLERANCE.get(name, 5e-6), err_msg=name)
    assert found.skipped[0] == found.skipped[1]


@pytest.mark.parametrize("odd", ["nan", "infinite", "all masked", "masked"])
def test_rows_that_cannot_be_drawn_from_have_no_u_and_mismatches_as_on_a_host(interpreter, odd):
    generator = torch.Generator().manual_seed(1)
    z = odd_logits(torch.randn(300, generator=generator), odd, generator)
    asked = [
        Sampling(t, k, p, 0.0, reproducible=True)
        for t, k, p in ((0.0, 0, 1.0), (0.0, 0, 1.0), (1.0, 0, 1.0), (1.0, 0, 1.0), (1.0, 7, 0.9))
    ]
    tokens = [7, 299, 7, int(z[:-1].argmin()), int(z[:-1].argmin())]
    found = measured(interpreter, one(z.expand(5, 300), tokens, asked))
    np.testing.assert_allclose(found.device, found.host, atol=1e-4)
    assert np.isnan(found.device[2:, U]).all() == (odd != "masked")


SETTINGS = {
    "plain": (1.0, 0, 1.0, 0.0),
    "top_k": (1.8, 4, 1.0, 0.0),
    "top_p": (1.4, 0, 0.4, 0.0),
    "min_p": (1.8, 0, 1.0, 0.4),
    "all": (1.8, 6, 0.6, 0.1),
}
"""Narrow enough that of two dozen draws it is seen where one is forgotten."""

ROWS = 24
"""Of each setting: an interpreted one takes a tenth of a second."""


def _drawn(z: torch.Tensor, setting: tuple[float, int, float, float]) -> torch.Tensor:
    """Tokens of vLLM's sampler, its own filters and its own draws."""
    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler

    temperature, top_k, top_p, min_p = setting
    x, rows = z.float() / temperature, len(z)
    p = x.softmax(dim=-1)
    x = x.masked_fill(p < min_p * p.amax(dim=-1, keepdim=True), -math.inf)
    k = torch.full((rows,), top_k, dtype=torch.int32) if top_k else None
    return TopKTopPSampler().forward_native(x, {}, k, torch.full((rows,), top_p) if top_p < 1 else None)[0]


@pytest.mark.thorough
def test_u_of_tokens_that_vllm_draws_is_uniform_and_of_those_it_draws_for_others_is_not(interpreter):
    torch.manual_seed(5)  # vLLM's sampler draws from the global generator
    z = (torch.randn(len(SETTINGS) * ROWS, 40) * 2).bfloat16()
    right = torch.cat([_drawn(each, s) for each, s in zip(z.split(ROWS), SETTINGS.values(), strict=True)])
    asked = [Sampling(*s, reproducible=True) for s in SETTINGS.values() for _ in range(ROWS)]
    u = measured(interpreter, one(z, right.tolist(), asked)).device[:, U].reshape(-1, ROWS)
    for name, of_setting in zip(SETTINGS, u, strict=True):
        assert stats.kstest(of_setting, "uniform").pvalue > 1e-3, name
    others, few = _drawn(z[:ROWS], SETTINGS["plain"]), [Sampling(0.9, 2, 1.0, 0.0, reproducible=True)] * ROWS
    u = measured(interpreter, one(z[:ROWS], others.tolist(), few)).device[:, U]
    assert stats.kstest(u, "uniform").pvalue < 1e-6


@pytest.mark.parametrize("setting", [(1.0, 0, 1.0, 0.0), (1.5, 2500, 0.999, 0.0), (0.7, 0, 0.3, 0.001)])
def test_rows_wider_than_what_is_looked_at_at_once_follow_the_definition(interpreter, setting):
    """In float64: where nearly nothing may go, what the host adds up in float32 is too much or too little."""
    generator = torch.Generator().manual_seed(3)
    z = (torch.randn(3, 9001, generator=generator) * 3).bfloat16()
    z[0, 9000] = 13.0
    tokens = [9000, 9000, int(z[2].argsort()[-40])]
    asked = [Sampling(*setting, reproducible=True)] * 3
    found = measured(interpreter, one(z, tokens, asked)).device[:, U]
    v = [measured(interpreter, one(torch.zeros(3, 2), [0, 0, 0], [SAMPLES_ALL] * 3)).device[:, U]][0]
    assert found == pytest.approx([_defined(*row) for row in zip(z, tokens, asked, v, strict=True)], abs=3e-6)


SAMPLES_ALL = Sampling(1.0, 0, 1.0, 0.0, reproducible=True)
"""Of a flat row U is V alone, and V is the row's."""


def _defined(z: torch.Tensor, token: int, asked: Sampling, v: float) -> float:
    """U, from q written out in float64."""
    x = z.double()
    w = ((x - x.max()) / asked.temperature).exp()
    w[w < asked.min_p] = 0
    if 0 < asked.top_k < len(w):
        w[w < w.sort().values[-asked.top_k]] = 0
    order = w.argsort(stable=True)
    goes = w[order].cumsum(0) <= (1 - asked.top_p) * w.sum()
    goes[-1] = False
    at_edge = w == w[order][~goes][0]
    q, kept = w.clone(), w[order][~goes]
    q[w < kept[0]] = 0
    own = float(q[token])
    if own == 0:
        return 1.0
    tied = int((kept == own).sum()) if bool(at_edge[token]) else int((q == own).sum())
    return float((kept[kept > own].sum() + v * tied * own) / kept.sum())


@pytest.mark.parametrize(
    "setting",
    [(1.0, 4, 1.0, 0.0), (1.0, 3, 1.0, 0.01), (1.0, 6, 1.0, 0.4), (1.0, 0, 0.7, 0.0), (1.0, 5, 0.7, 0.1)],
)
def test_a_filter_ends_at_the_same_token_as_on_a_host_and_the_narrower_of_two_counts(interpreter, setting):
    z = torch.linspace(2, -8, 41).flip(0).roll(11)
    tokens = z.argsort(descending=True)[:7].tolist()
    asked = [Sampling(*setting, reproducible=True)] * len(tokens)
    found = measured(interpreter, one(z.expand(7, 41), tokens, asked))
    assert found.device[:, U] == pytest.approx(found.host[:, U], abs=5e-6)
    assert 2 < np.count_nonzero(found.host[:, U] < 1) < 7


def test_tokens_tied_at_the_edge_of_top_p_count_only_as_many_as_stay(interpreter):
    # Ten tokens of probability 0.1: top-p 0.35 keeps four of them, whichever the sampler's sort puts last.
    asked = [Sampling(1.0, 0, p, 0.0, reproducible=True) for p in (0.35, 1.0)]
    z = torch.zeros(2, 10)
    found = measured(interpreter, [*one(z[:1], [4], asked[:1]), *one(z[1:], [4], asked[1:])])
    assert found.device[0, U] == pytest.approx(found.host[0, U], abs=1e-6)


def test_a_token_that_is_no_arg_max_is_a_mismatch_where_nothing_was_to_be_drawn(interpreter):
    z = torch.tensor([[0.0, 5.0, 5.0, 1.0]]).expand(4, 4)
    greedy = [Sampling(0.0, 0, 1.0, 0.0, reproducible=True)] * 4
    found = measured(interpreter, one(z, [0, 1, 2, 3], greedy)).device
    assert found[:, MISMATCH].tolist() == [1, 0, 0, 1]
    assert np.isnan(found[:, U]).all()


def test_tokens_that_the_runner_has_read_itself_give_the_same(interpreter):
    z = torch.randn(3, 40)
    rows = Rows(z, [1, 2, 3], [True, False, True], [SAMPLES_ALL] * 3)
    listed = Rows(z, [1, 2, 3], [True, False, True], [SAMPLES_ALL] * 3, lists_tokens=True)
    np.testing.assert_array_equal(
        measured(interpreter, [rows]).device, measured(interpreter, [listed]).device
    )


def test_a_sampler_that_is_switched_off_costs_no_output_signals(interpreter):
    found = measured(interpreter, one(torch.randn(2, 40), [1, 2], [SAMPLES_ALL, NOT_REPRODUCED]), "sampler")
    assert np.isnan(found.device[:, [U, MISMATCH]]).all()
    assert not np.isnan(found.device[:, LAYOUT.blocks["output.entropy"]]).any()
    assert found.skipped == (0, 0)


def test_parameters_that_cannot_be_computed_with_cost_no_other_request_its_sampler_signals(interpreter):
    odd = Sampling(1.0, "many", 1.0, 0.0, reproducible=True)
    found = measured(interpreter, one(torch.randn(3, 40), [1, 2, 3], [SAMPLES_ALL, odd, SAMPLES_ALL]))
    assert np.isnan(found.device[:, U]).tolist() == [False, True, False]
    assert found.errors == ({"sampler": 1}, {"sampler": 1})


@pytest.mark.parametrize("lists_tokens", [False, True])
def test_neither_a_step_nor_a_flush_waits_for_the_device_nor_makes_what_is_as_wide_as_a_vocabulary(
    interpreter, lists_tokens
):
    asked = [Sampling(*SETTINGS["all"], reproducible=True), SAMPLES_ALL, NOT_REPRODUCED]
    rows = Rows(
        torch.zeros(3, 50_000, dtype=torch.bfloat16), [1, 2, 3], [True] * 3, asked, [2, 0, 1], lists_tokens
    )
    found, of_step, of_flush = interpreter.call("tests.device_output", "waits", rows)[0]
    assert found == []
    assert of_step <= 3 * 8
    assert of_flush <= 3 * 5 * 8


def test_a_row_pays_for_its_own_filters_alone(interpreter):
    settings_of = [SETTINGS[name] for name in ("plain", "min_p", "top_k", "top_p", "all")]
    asked = [Sampling(*each, reproducible=True) for each in settings_of]
    asked += [Sampling(0.0, 5, 0.5, 0.0, reproducible=True), NOT_REPRODUCED]
    counts = [
        interpreter.call("tests.device_output", "cuts", one(torch.randn(1, 40), [1], [each])[0])[0]
        for each in asked
    ]
    assert counts == [0, 0, 1, 1, 2, 0, 0]

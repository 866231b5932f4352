"""Sampler signals against q written out in float64, and against vLLM's own sampler."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from vllm import _custom_ops as _kernels  # noqa: F401 - registers the sampler's kernel
from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler, apply_top_k_top_p

from introspan.capture.sampler import SamplingParameters, greedy_mismatch, pit

SETTINGS = {
    "plain": (1.0, 0, 1.0, 0.0),
    "cold": (0.4, 0, 1.0, 0.0),
    "hot": (1.8, -1, 1.0, 0.0),
    "top_k": (1.0, 20, 1.0, 0.0),
    "top_k_1": (1.0, 1, 1.0, 0.0),
    "top_p": (1.0, 0, 0.9, 0.0),
    "top_p_small": (0.7, 0, 0.05, 0.0),
    "min_p": (1.2, 0, 1.0, 0.1),
    "all": (0.8, 40, 0.85, 0.02),
    "wide": (1.5, 2500, 0.999, 0.0),
}


def parameters(rows, temperature, top_k, top_p, min_p):
    return SamplingParameters(
        torch.full((rows,), temperature),
        torch.full((rows,), top_k),
        torch.full((rows,), top_p),
        torch.full((rows,), min_p),
        filtered=top_k > 0 or top_p < 1 or min_p > 0,
    )


def sampled_distribution(logits, temperature, top_k, top_p, min_p):
    """q of vLLM 0.32, from vLLM's own masks. logits: [rows, V] → float64 [rows, V]."""
    x = logits.float() / temperature
    p = x.softmax(dim=-1)
    x = x.masked_fill(p < min_p * p.amax(dim=-1, keepdim=True), -math.inf)
    rows, size = x.shape
    k = torch.full((rows,), top_k, dtype=torch.int32) if 0 < top_k < size else None
    x = apply_top_k_top_p(x, k, torch.full((rows,), top_p) if top_p < 1 else None)
    return x.double().softmax(dim=-1).numpy()


def naive(q, token, v):
    """U of one row by its definition. q: float64 [V]."""
    if q[token] == 0:
        return 1.0
    return q[q > q[token]].sum() + v * q[q == q[token]].sum()


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("size", [300, 3000])
def test_pit_follows_its_definition_for_every_token(setting, size):
    generator = torch.Generator().manual_seed(size)
    logits = torch.randn(1, size, generator=generator) * 3
    q = sampled_distribution(logits, *setting)[0]
    tokens = torch.arange(size)
    v = torch.rand(size, generator=generator)
    found = pit(logits.expand(size, size), tokens, parameters(size, *setting), v)
    expected = [naive(q, token, float(v[token])) for token in range(size)]
    assert found.numpy() == pytest.approx(expected, abs=3e-6)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_pit_of_tokens_that_vllm_samples_is_uniform(setting):
    torch.manual_seed(3)  # vLLM's sampler draws from the global generator
    rows = 4000
    logits = torch.randn(rows, 1500) * 2.5
    temperature, top_k, top_p, min_p = setting
    x = logits / temperature
    p = x.softmax(dim=-1)
    x = x.masked_fill(p < min_p * p.amax(dim=-1, keepdim=True), -math.inf)
    k = torch.full((rows,), top_k, dtype=torch.int32) if 0 < top_k < 1500 else None
    tokens, _ = TopKTopPSampler().forward_cpu(x, {}, k, torch.full((rows,), top_p) if top_p < 1 else None)
    u = pit(logits, tokens.long(), parameters(rows, *setting), torch.rand(rows))
    assert stats.kstest(u.numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("sampled", "requested"),
    [
        ("cold", "plain"),
        ("plain", "cold"),
        ("plain", "top_k"),
        ("top_p", "plain"),
        ("plain", "min_p"),
        ("top_k", "all"),
    ],
)
def test_pit_of_a_sampler_that_ignores_what_was_requested_is_not_uniform(sampled, requested):
    rng = np.random.default_rng(4)
    logits = torch.from_numpy(rng.normal(size=(2000, 500)) * 2.5).float()
    q = sampled_distribution(logits, *SETTINGS[sampled])
    tokens = [rng.choice(500, p=row) for row in q]
    u = pit(
        logits,
        torch.tensor(tokens),
        parameters(2000, *SETTINGS[requested]),
        torch.from_numpy(rng.random(2000)),
    )
    assert stats.kstest(u.numpy(), "uniform").pvalue < 1e-6


def test_rows_with_different_parameters_are_each_measured_by_their_own():
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(len(SETTINGS), 2000, generator=generator) * 3
    tokens = logits.topk(3).indices[:, 2]
    v = torch.rand(len(SETTINGS), generator=generator)
    columns = [torch.tensor(column) for column in zip(*SETTINGS.values(), strict=True)]
    together = pit(logits, tokens, SamplingParameters(*columns, filtered=True), v)
    for i, setting in enumerate(SETTINGS.values()):
        row = slice(i, i + 1)
        alone = pit(logits[row], tokens[row], parameters(1, *setting), v[row])
        assert together[i].item() == pytest.approx(alone.item(), abs=1e-6)


@pytest.mark.parametrize("setting", ["top_k", "top_p", "min_p", "all"])
def test_a_token_outside_the_support_gives_one(setting):
    logits = torch.linspace(0, 30, 3000).view(1, -1)
    assert pit(logits, torch.tensor([5]), parameters(1, *SETTINGS[setting]), torch.tensor([0.0])).item() == 1


def test_a_token_far_below_the_leader_gives_one_without_overflow():
    logits = torch.zeros(2, 100)
    logits[:, 0] = 1e4
    logits[1, 7] = -math.inf
    found = pit(logits, torch.tensor([7, 7]), parameters(2, *SETTINGS["plain"]), torch.tensor([0.5, 0.5]))
    assert found.tolist() == [1, 1]


def test_tokens_tied_at_the_edge_of_top_p_count_only_as_many_as_stay():
    # Ten tokens of probability 0.1: top-p 0.35 keeps four of them, whichever the sampler's sort puts last.
    v = torch.linspace(0, 1, 10)
    found = pit(torch.zeros(10, 10), torch.arange(10), parameters(10, 1.0, 0, 0.35, 0.0), v)
    assert found.numpy() == pytest.approx(v.numpy(), abs=1e-6)


@pytest.mark.parametrize("setting", ["plain", "top_k", "top_p"])
def test_rows_that_are_greedy_or_not_finite_are_not_measured(setting):
    _, top_k, top_p, min_p = SETTINGS[setting]
    logits = torch.randn(4, 2000)
    logits[1, 3], logits[2, 3] = math.nan, math.inf
    settings = parameters(4, 1.0, top_k, top_p, min_p)
    settings.temperature[0] = 0.0
    best = logits[3].argmax()
    found = pit(logits, best.expand(4), settings, torch.full((4,), 0.5))
    assert found.isnan().tolist() == [True, True, True, False]


def test_logits_are_left_as_they_were():
    logits = torch.randn(2, 2000)
    before = logits.clone()
    pit(logits, torch.tensor([0, 1]), parameters(2, *SETTINGS["all"]), torch.rand(2))
    assert torch.equal(logits, before)


def test_greedy_mismatch_counts_only_greedy_tokens_below_the_maximum():
    logits = torch.tensor([[0.0, 5.0, 5.0, 1.0]]).expand(5, 4)
    tokens = torch.tensor([1, 2, 3, 3, 0])
    temperature = torch.tensor([0.0, 0.0, 0.0, 1.0, 1e-6])
    assert greedy_mismatch(logits, tokens, temperature).tolist() == [0, 0, 1, 0, 1]

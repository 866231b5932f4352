"""Sampler signals against q written out in float64, and against vLLM's own sampler."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from vllm import _custom_ops as _kernels  # noqa: F401 - registers the sampler's kernel
from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler, apply_top_k_top_p

from introspan.capture.output.sampler import Sampling, greedy_mismatch, pit
from introspan.capture.output.vocabulary import Vocabulary

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


def pits(logits, tokens, setting, v):
    """U of each row by one vocabulary, as the output probe computes them."""
    vocabulary, found = Vocabulary(logits.shape[1]), []
    for row, token, own in zip(logits.float().numpy(), tokens.tolist(), v.tolist(), strict=True):
        vocabulary.statistics(row, token)
        found.append(pit(vocabulary.weights(setting[0]), token, Sampling(*setting, reproducible=True), own))
    return np.array(found)


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
    v = torch.rand(size, generator=generator)
    found = pits(logits.expand(size, size), torch.arange(size), setting, v)
    expected = [naive(q, token, float(v[token])) for token in range(size)]
    assert found == pytest.approx(expected, abs=3e-6)


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
    u = pits(logits, tokens, setting, torch.rand(rows))
    assert stats.kstest(u, "uniform").pvalue > 1e-3


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
    tokens = np.array([rng.choice(500, p=row) for row in q])
    u = pits(logits, tokens, SETTINGS[requested], rng.random(2000))
    assert stats.kstest(u, "uniform").pvalue < 1e-6


@pytest.mark.parametrize("setting", ["top_k", "top_p", "min_p", "all"])
def test_a_token_outside_the_support_gives_one(setting):
    logits = torch.linspace(0, 30, 3000).view(1, -1)
    assert pits(logits, torch.tensor([5]), SETTINGS[setting], torch.tensor([0.0])).tolist() == [1]


def test_a_token_far_below_the_leader_gives_one_without_overflow():
    logits = torch.zeros(2, 100)
    logits[:, 0] = 1e4
    logits[1, 7] = -math.inf
    found = pits(logits, torch.tensor([7, 7]), SETTINGS["plain"], torch.tensor([0.5, 0.5]))
    assert found.tolist() == [1, 1]


def test_tokens_tied_at_the_edge_of_top_p_count_only_as_many_as_stay():
    # Ten tokens of probability 0.1: top-p 0.35 keeps four of them, whichever the sampler's sort puts last.
    v = torch.linspace(0, 1, 10)
    found = pits(torch.zeros(10, 10), torch.arange(10), (1.0, 0, 0.35, 0.0), v)
    assert found == pytest.approx(v.numpy(), abs=1e-6)


@pytest.mark.parametrize("top_p", [1e-9, 0.5, 1 - 1e-9])
def test_a_flat_distribution_is_cut_where_top_p_says(top_p):
    rows = 50_000
    found = pits(torch.zeros(1, rows), torch.tensor([0]), (1.0, 0, top_p, 0.0), torch.tensor([0.25]))
    assert found.tolist() == pytest.approx([0.25], abs=1e-5)


def test_greedy_mismatch_counts_tokens_below_the_maximum():
    logits = np.array([0.0, 5.0, 5.0, 1.0], np.float32)
    assert [greedy_mismatch(logits, token) for token in range(4)] == [1, 0, 0, 1]


def test_temperatures_below_that_of_vllm_are_greedy():
    assert [Sampling(t, 0, 1.0, 0.0, reproducible=True).is_greedy for t in (0.0, 1e-6, 1e-4)] == [1, 1, 0]

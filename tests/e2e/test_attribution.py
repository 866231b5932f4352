"""Requests that are interleaved, preempted, aborted or sampled n times each get their own numbers."""

import numpy as np
import pytest
from comparison import Comparison
from engine import EVERYTHING, Call, Run, run
from prompts import PROMPTS
from reference import HuggingFace
from scipy import stats
from tiny_models import SERVED, VOCABULARY, write

from introspan.capture.stream.projection import orthogonal_map

HIDDEN_SIZE = 128
TINY = SERVED | {"max_model_len": 1024}


PREEMPTING = TINY | {"max_model_len": 512, "max_num_seqs": 6, "num_gpu_blocks_override": 8}
"""Room for 7 blocks of 128 tokens: six requests of 220 tokens cannot all stay."""


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory):
    return write("llama", tmp_path_factory.mktemp("tiny"))


def _prompt(seed: int, length: int) -> list[int]:
    return np.random.default_rng(seed).integers(3, VOCABULARY, length).tolist()


def _compare(result, model, calls: list[tuple[Call, str, list[int]]], stride: int = 1) -> None:
    assert result.status["disabled"] == [], result.stderr[-2000:]
    assert result.status["probe_errors"] == 0, result.stderr[-2000:]
    assert result.status["dropped_rows"] == {}, result.stderr[-2000:]
    comparison = Comparison(result, HuggingFace(model), HIDDEN_SIZE, stride)
    projection = orthogonal_map(HIDDEN_SIZE).astype(np.float64)
    for call, name, generated in calls:
        comparison.add(call, name, generated, projection)
    failures = [line for line in comparison.failures() if "never" not in line]
    assert not failures


def test_interleaved_aborted_and_multiple_samples_keep_their_own_rows(tiny_llama, tmp_path):
    greedy = {"temperature": 0.0, "max_tokens": 20, "ignore_eos": True}
    drawn = {"temperature": 1.0, "max_tokens": 15, "ignore_eos": True, "n": 3}
    calls = [Call(f"greedy {i}", _prompt(i, 5 + 30 * i), greedy, at=3 * i) for i in range(5)]
    calls += [Call("thrice", _prompt(20, 40), drawn, at=4)]
    calls += [Call("aborted", _prompt(21, 50), greedy | {"max_tokens": 200}, at=2, abort_at=17)]
    engine = TINY | {"max_num_seqs": 5, "max_num_batched_tokens": 48}
    result = run(Run(str(tiny_llama), calls, engine, EVERYTHING), tmp_path)
    expected = [(call, call.id, result.tokens[call.id][0]) for call in calls if call.id.startswith("greedy")]
    expected += [(calls[5], f"{i}_thrice", tokens) for i, tokens in enumerate(result.tokens["thrice"])]
    aborted = result.rows_of("aborted")
    assert 1 < len(aborted) < 17
    assert result.ended["aborted"] == result.row_positions[aborted].max()
    expected.append((calls[6], "aborted", result.tokens["aborted"][0][: len(aborted)]))
    _compare(result, tiny_llama, expected)


def test_rows_are_output_tokens_and_count_once_under_preemption(tiny_llama, tmp_path):
    params = {"temperature": 0.0, "max_tokens": 120, "ignore_eos": True}
    calls = [Call(f"request {i}", _prompt(i, 100 + i), params, at=i) for i in range(6)]
    result = run(Run(str(tiny_llama), calls, PREEMPTING, EVERYTHING), tmp_path)
    assert result.preemptions > 0, "the cache was large enough for all: nothing was tested"
    for call in calls:
        decoded = len(result.rows_of(call.id)) - 1
        assert decoded == len(result.tokens[call.id][0]) - 1
    _compare(result, tiny_llama, [(call, call.id, result.tokens[call.id][0]) for call in calls])


def test_bursts_are_right_too_while_rows_wait_over_preemptions_and_aborts(tiny_llama, tmp_path):
    params = {"temperature": 0.9, "max_tokens": 120, "ignore_eos": True}
    calls = [Call(f"request {i}", _prompt(i, 100 + i), params, at=5 * i) for i in range(6)]
    calls += [
        Call(f"aborted {i}", _prompt(30 + i, 40), params, at=7 * i, abort_at=7 * i + 40) for i in range(3)
    ]
    env = EVERYTHING | {"INTROSPAN_TOKEN_STRIDE": "24"}
    result = run(Run(str(tiny_llama), calls, PREEMPTING, env), tmp_path)
    assert result.preemptions > 0, "the cache was large enough for all: nothing was tested"
    # The last token of an aborted request was delivered but never fed back.
    reached = {call.id: result.ended[call.id] + 2 - len(call.prompt) for call in calls}
    delivered = [(call, call.id, result.tokens[call.id][0][: reached[call.id]]) for call in calls]
    _compare(result, tiny_llama, delivered, stride=24)


SETTINGS = (
    {"temperature": 1.0},
    {"temperature": 0.5},
    {"temperature": 1.4, "top_p": 0.8},
    {"temperature": 1.0, "top_k": 30},
    {"temperature": 0.9, "min_p": 0.1},
    {"temperature": 1.1, "top_p": 0.95, "top_k": 50, "min_p": 0.02},
)


def _sampled(prompts: list[list[int]], tokens: int) -> list[Call]:
    """Four requests with each of the settings."""
    return [
        Call(
            f"{i} of setting {s}",
            prompts[(4 * s + i) % len(prompts)],
            setting | {"max_tokens": tokens, "ignore_eos": True},
        )
        for s, setting in enumerate(SETTINGS)
        for i in range(4)
    ]


def _uniform(result) -> None:
    u = result.block("sampler.pit")[:, 0]
    everything = u[[name != "last" for name in result.row_ids]]
    assert len(everything) >= 2000
    assert stats.kstest(everything, "uniform").pvalue > 1e-3
    for s, setting in enumerate(SETTINGS):
        mine = u[[name.endswith(f"of setting {s}") for name in result.row_ids]]
        assert stats.kstest(mine, "uniform").pvalue > 1e-3, setting


def test_pit_of_sampled_traffic_is_uniform(tiny_llama, tmp_path):
    calls = _sampled([_prompt(seed, 12) for seed in range(24)], 120)
    _uniform(run(Run(str(tiny_llama), calls, TINY | {"max_num_seqs": 24}, EVERYTHING), tmp_path))


@pytest.mark.slow  # two thousand tokens of the real model
def test_pit_of_the_real_models_traffic_is_uniform(model_directory, tokenizer, tmp_path):
    texts = [text for name, text in PROMPTS.items() if len(text) < 300]
    calls = _sampled([tokenizer.encode(text) for text in texts], 90)
    engine = {"max_model_len": 512, "max_num_seqs": 24, "max_num_batched_tokens": 512}
    env = {
        "INTROSPAN_ENDPOINT": "127.0.0.1:1",
        "INTROSPAN_TOKEN_STRIDE": "1",
        "INTROSPAN_ROW_BUDGET": "1000000",
    }
    _uniform(run(Run(str(model_directory), calls, engine, env), tmp_path))


def test_pit_of_a_wrong_temperature_is_not_uniform(tiny_llama, tmp_path):
    calls = [
        Call(f"request {i}", _prompt(i, 12), {"temperature": 1.0, "max_tokens": 100, "ignore_eos": True})
        for i in range(8)
    ]
    # The engine samples at 1.5 what was asked for at 1.0.
    fault = (
        "from vllm.v1.sample.sampler import Sampler\n"
        "original = Sampler.apply_temperature\n"
        "Sampler.apply_temperature = staticmethod(lambda x, t, *a, **k: original(x, t * 1.5, *a, **k))\n"
    )
    result = run(Run(str(tiny_llama), calls, TINY | {"max_num_seqs": 8}, EVERYTHING, before=fault), tmp_path)
    u = result.block("sampler.pit")[:, 0]
    assert stats.kstest(u[[name != "last" for name in result.row_ids]], "uniform").pvalue < 1e-6


def test_requests_with_other_processors_are_skipped_and_counted(tiny_llama, tmp_path):
    plain = {"temperature": 1.0, "max_tokens": 10, "ignore_eos": True}
    calls = [
        Call("plain", _prompt(1, 12), plain),
        Call("penalised", _prompt(2, 12), plain | {"presence_penalty": 0.5}),
        Call("seeded", _prompt(3, 12), plain | {"seed": 4}),
        Call("biased", _prompt(4, 12), plain | {"logit_bias": {"5": 2.0}}),
    ]
    result = run(Run(str(tiny_llama), calls, TINY | {"max_num_seqs": 8}, EVERYTHING), tmp_path)
    u = result.block("sampler.pit")[:, 0]
    assert not np.isnan(u[result.rows_of("plain")]).any()
    for name in ("penalised", "seeded", "biased"):
        assert np.isnan(u[result.rows_of(name)]).all()
    assert result.status["sampler_rows_skipped"] == 30

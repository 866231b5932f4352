"""Engines that are not followed, or not wholly: they answer as without Introspan, and everybody is told why, once."""

import numpy as np
import pytest
from engine import EVERYTHING, Call, Result, Run, run
from tiny_models import SERVED, VOCABULARY, write, write_talking

from tests.collector import Collector
from tests.patience import eventually

# One process has them all: a collector and a model.
pytestmark = pytest.mark.xdist_group("refused")

TINY = SERVED | {"max_model_len": 512, "max_num_seqs": 4, "max_num_batched_tokens": 128}
GUESSING = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3}
REFUSED = {
    "speculation": (
        {"speculative_config": GUESSING},
        "speculative decoding schedules rows that may be rejected",
    ),
    "pooling": (
        # It takes text too, and wants a tokenizer for it.
        {"runner": "pooling", "convert": "embed", "skip_tokenizer_init": False},
        "a pooling model generates no tokens",
    ),
}


def _calls() -> list[Call]:
    draw = np.random.default_rng(5)
    greedy = {"temperature": 0.0, "max_tokens": 12, "ignore_eos": True, "logprobs": 3}
    lengths = enumerate((4, 40, 150))
    return [Call(f"{i}", draw.integers(3, VOCABULARY, n).tolist(), greedy, at=i) for i, n in lengths]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write("llama", tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def talking(model_directory, tmp_path_factory):
    return write_talking(model_directory, tmp_path_factory.mktemp("talking"))


@pytest.fixture(scope="module")
def collector(tmp_path_factory, free_port):
    with Collector(tmp_path_factory.mktemp("collector"), free_port) as running:
        yield running


def _off_and_on(model, setting: dict, replica: str, collector: Collector, folder) -> tuple[Result, Result]:
    engine = TINY | setting
    off = run(Run(str(model), _calls(), engine, pipeline="none"), folder / "off")
    env = EVERYTHING | {"INTROSPAN_ENDPOINT": collector.grpc, "INTROSPAN_REPLICA": replica}
    task = Run(str(model), _calls(), engine, env, pipeline="real", takes_leave=True)
    on = run(task, folder / "on")
    collector.wait_processed()
    return off, on


def _refused_at(collector: Collector, replica: str) -> list[str]:
    """What the collector shows of what this replica does not capture."""
    return [of for of in collector.samples("introspan_capture_disabled") if f'replica="{replica}"' in of]


@pytest.mark.parametrize("name", REFUSED)
def test_an_engine_that_cannot_be_followed_answers_the_same_and_the_collector_is_told_why(
    name, tiny, talking, collector, tmp_path
):
    setting, why = REFUSED[name]
    model = talking if name == "pooling" else tiny
    off, on = _off_and_on(model, setting, name, collector, tmp_path)
    assert all(answer for samples in off.tokens.values() for answer in samples)
    assert (on.tokens, on.logprobs) == (off.tokens, off.logprobs)
    (refused,) = eventually(lambda: _refused_at(collector, name))
    assert 'signal="capture"' in refused
    assert 'reason="unsupported_engine"' in refused
    assert on.stderr.count("is not captured") == 1
    assert on.stderr.count(why) == 1
    assert "introspan: probe" not in on.stderr, "nothing of ours raised"
    assert collector.metric("introspan_sdk_measured_rows_total", replica=name) == 0


def test_a_quantised_cache_costs_attention_and_nothing_else(tiny, collector, tmp_path):
    off, on = _off_and_on(tiny, {"kv_cache_dtype": "fp8"}, "fp8", collector, tmp_path)
    assert (on.tokens, on.logprobs) == (off.tokens, off.logprobs)
    (refused,) = eventually(lambda: _refused_at(collector, "fp8"))
    assert 'signal="attention"' in refused
    assert 'reason="unsupported_attention"' in refused
    assert on.stderr.count("is not captured") == 1
    assert (
        "introspan: attention is not captured (unsupported_attention): the KV cache is quantised" in on.stderr
    )
    # Twelve answers' rows of three requests; of the last token there is none.
    assert collector.metric("introspan_sdk_measured_rows_total", replica="fp8") >= 3 * 12
    assert collector.metric("introspan_output_entropy_nats_count", replica="fp8") > 0
    assert collector.metric("introspan_attention_entropy_nats_count", replica="fp8") == 0
    residual = collector.samples("introspan_residual_log_rms_window_mean")
    assert any('replica="fp8"' in of for of in residual)

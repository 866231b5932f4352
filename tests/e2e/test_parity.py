"""Every captured value equals the same quantity computed from Hugging Face transformers, materialised."""

import numpy as np
import pytest
from comparison import TOLERANCE, Comparison
from engine import EVERYTHING, Call, Run, run
from prompts import PROMPTS

from introspan.capture.stream.projection import orthogonal_map
from introspan_wire.signals import CATALOGUE, Kind

pytestmark = pytest.mark.xdist_group("parity")  # one process: they share what takes long to start

SAMPLING = (
    {"temperature": 0.0},
    {"temperature": 0.8},
    {"temperature": 1.0, "top_p": 0.9},
    {"temperature": 0.7, "top_k": 40},
    {"temperature": 1.3, "min_p": 0.05},
    {"temperature": 0.9, "top_p": 0.95, "top_k": 100},
)


@pytest.fixture(scope="module")
def calls(tokenizer) -> list[Call]:
    found = []
    for i, (name, text) in enumerate(PROMPTS.items()):
        ids = tokenizer(text).input_ids
        params = SAMPLING[i % len(SAMPLING)] | {"max_tokens": 12, "ignore_eos": True}
        found.append(Call(f"cold {name}", ids, params, at=i // 2))
        if len(ids) > 128:
            # Late enough for the first to be over, so that its blocks are read from the cache.
            found.append(Call(f"cached {name}", ids, params, at=100))
    return found


@pytest.fixture(scope="module")
def result(calls, model_directory, tmp_path_factory):
    engine = {
        "max_model_len": 2048,
        "max_num_seqs": 16,
        "max_num_batched_tokens": 384,  # long prompts are computed in chunks
        "enable_prefix_caching": True,
    }
    return run(Run(str(model_directory), calls, engine, EVERYTHING), tmp_path_factory.mktemp("parity"))


def test_the_prompts_are_varied(calls, result):
    cold = [call for call in calls if call.id.startswith("cold")]
    assert len(cold) >= 20
    assert min(len(call.prompt) for call in cold) < 4
    assert max(len(call.prompt) for call in cold) > 1000
    cached = {name: tokens for name, tokens in result.cached.items() if name.startswith("cached")}
    assert cached
    assert all(tokens >= 128 for tokens in cached.values())


def test_every_value_equals_the_reference(calls, result, huggingface):
    assert result.status["disabled"] == []
    assert result.status["probe_errors"] == 0
    measured = {name for name, signal in CATALOGUE.items() if Kind.DECODED in signal.kinds}
    assert {column[0] for column in result.columns} == measured == set(TOLERANCE)
    hidden_size = 576
    comparison = Comparison(result, huggingface, hidden_size)
    projection = orthogonal_map(hidden_size).astype(np.float64)
    for call in calls:
        comparison.add(call, call.id, result.tokens[call.id][0], projection)
    for signal, worst in comparison.report().items():
        print(f"{signal:24} largest difference {worst:.2e}, allowed {TOLERANCE[signal]:.0e}")
    failures = comparison.failures()
    assert not failures, f"{len(failures)} columns: {failures[:20]}"

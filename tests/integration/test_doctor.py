"""`introspan doctor` on the installed vLLM: what it would capture of a model that is not served, and why not."""

import json
import os
import subprocess
import sys

import pytest

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 1024,
    "torch_dtype": "float32",
}


def doctor(model, **environ):
    own = {key: value for key, value in os.environ.items() if not key.startswith(("INTROSPAN_", "OTEL_"))}
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "introspan.doctor", str(model)],
        env=own | quiet | environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()


@pytest.fixture
def model(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    return tmp_path


@pytest.mark.slow  # importing vLLM alone takes twenty seconds of a core
def test_it_names_settings_collector_engine_and_every_signal_with_its_layers(model):
    said = doctor(model, INTROSPAN_ENDPOINT="127.0.0.1:1", INTROSPAN_LAYERS="0,2")
    assert said[0] == "settings: capture is on, exporting to 127.0.0.1:1"
    assert said[1].startswith("collector: 127.0.0.1:1 cannot be reached")
    assert said[2] == "vLLM 0.32.0: tested"
    assert said[3:] == [
        "residual stream: 4 of 4 points (norm)",
        "attention: 3 of 3 layers",
        "captured: residual at layers 0, 2",
        "captured: residual.projection at layers 1",
        "captured: attention at layers 0, 1, 2",
        "captured: output, sampler",
        # Seven signals and 32 components of the stream, three of each head, seven of the output and the sampler.
        f"{2 * 7 + 32 + 3 * 3 * 4 + 7} values a row, 0.3 KiB",
    ]

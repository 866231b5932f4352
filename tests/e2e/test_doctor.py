"""`introspan doctor` on the installed vLLM: what it would capture of a model that nobody serves, and why not."""

import json
import os
from itertools import count

import pytest
from engine import QUIET, host
from forking import ProgramOrder

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
APERTUS = LLAMA | {
    "architectures": ["ApertusForCausalLM"],
    "model_type": "apertus",
    "hidden_act": "xielu",
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
"""Its activation computes with its own weights as soon as it is made."""

EXAONE = LLAMA | {
    "architectures": ["Exaone4ForCausalLM"],
    "model_type": "exaone4",
    "layer_types": ["full_attention"] * 3,
    "sliding_window": None,
}
"""Its layers take the stream together with a second tensor, and have no norm in front of their attention."""

CLASSIFIER = LLAMA | {"architectures": ["LlamaForSequenceClassification"]}
NOBODYS = LLAMA | {"architectures": ["NobodysForCausalLM"], "model_type": "nobodys"}


@pytest.fixture
def doctor(tmp_path):
    """Asks about the model of a configuration: exit code, lines on standard output, and what was said besides."""
    numbers = count()

    def ask(config, **environ):
        folder = tmp_path / f"{next(numbers)}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        out, err = folder / "stdout", folder / "stderr"
        own = {
            name: value for name, value in os.environ.items() if not name.startswith(("INTROSPAN_", "OTEL_"))
        }
        order = ProgramOrder("introspan.doctor", [str(folder)], str(out), str(err), own | QUIET | environ)
        code = host().run(order, 300)
        # The process that it is forked off has told vLLM already to warn, which the doctor tells it not to.
        said = [line for line in out.read_text().splitlines() if " WARNING " not in f" {line}"]
        return code, said, err.read_text()

    return ask


def test_it_names_settings_collector_engine_and_every_signal_with_its_layers(doctor):
    code, said, messages = doctor(LLAMA, INTROSPAN_ENDPOINT="127.0.0.1:1", INTROSPAN_LAYERS="0,2")
    assert code == 0, (said, messages[-4000:])
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


def test_of_a_model_whose_layers_are_not_understood_it_says_what_is_lost_and_what_is_captured_still(doctor):
    code, said, messages = doctor(EXAONE)
    assert code == 0, (said, messages[-4000:])
    assert "residual stream: 1 of 4 points (norm)" in said
    assert "not captured: residual: the stream entering layers [0, 1, 2] cannot be read" in said
    assert not any(line.startswith("captured: residual at") for line in said)
    assert "captured: attention at layers 0, 1, 2" in said
    assert "captured: output, sampler" in said


def test_of_a_model_that_cannot_be_built_without_weights_it_says_who_will_tell_and_ends_with_1(doctor):
    code, said, _ = doctor(APERTUS)
    assert said[-1].startswith("not known: capture: the layers cannot be made without weights (")
    assert said[-1].endswith("); the server's log says at its start what is captured")
    assert code == 1


def test_of_a_model_that_generates_no_tokens_it_says_that_nothing_is_captured_and_ends_with_1(doctor):
    code, said, messages = doctor(CLASSIFIER)
    assert said[-1] == "not captured: capture: a pooling model generates no tokens", messages[-4000:]
    assert not any(line.startswith("captured:") for line in said)
    assert code == 1


def test_of_a_model_that_vllm_does_not_serve_it_gives_vllms_own_reason_in_a_line_and_ends_with_1(doctor):
    code, said, messages = doctor(NOBODYS)
    assert said[-1].startswith("not captured: capture: vLLM cannot serve ")
    assert "Nobodys" in said[-1] or "nobodys" in said[-1]
    assert len(said[-1]) < 600
    assert "Traceback" not in messages
    assert code == 1


def test_where_a_setting_is_wrong_it_says_key_value_and_remedy_and_ends_with_1(doctor):
    code, said, messages = doctor(LLAMA, INTROSPAN_TOKEN_STRIDE="none")
    assert said[0].startswith(
        "not captured: capture: INTROSPAN_TOKEN_STRIDE must be an integer ≥ 1, got 'none'"
    )
    # Of the model all the same, as with the defaults.
    assert "captured: output, sampler" in said, messages[-4000:]
    assert code == 1

"""Models whose attention is not measured everywhere, served: streams and outputs are, and the reason is said."""

import json

import numpy as np
import pytest
from engine import EVERYTHING, Call, Run, run

pytestmark = pytest.mark.slow  # an engine for each

_SMALL = {
    "vocab_size": 512, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4,
    "head_dim": 32, "max_position_embeddings": 1024, "eos_token_id": 2,
}  # fmt: skip
# Of the sizes that the CPU's kernels for latent keys know.
LATENT = _SMALL | {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "num_key_value_heads": 4,
    "kv_lora_rank": 512, "q_lora_rank": 64, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "n_routed_experts": 2, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 3,
    "num_experts_per_tok": 1, "moe_intermediate_size": 64, "torch_dtype": "bfloat16",
}  # fmt: skip
HYBRID = _SMALL | {
    "architectures": ["Lfm2ForCausalLM"], "model_type": "lfm2", "num_key_value_heads": 2,
    "layer_types": ["conv", "full_attention", "conv"], "block_dim": 128, "block_ff_dim": 256,
    "block_auto_adjust_ff_dim": False, "conv_L_cache": 3, "conv_dim": 128, "conv_dim_out": 128, "conv_bias": False,
    "norm_eps": 1e-5, "torch_dtype": "float32",
}  # fmt: skip
NOT_EVERYWHERE = ("residual.velocity", "residual.curvature", "sampler.pit")


def _served(config, directory):
    folder = directory / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    draw = np.random.default_rng(5)
    calls = [
        Call(
            f"request {i}",
            draw.integers(3, 512, length).tolist(),
            {"max_tokens": 6, "temperature": 0.0, "ignore_eos": True},
            at=i,
        )
        for i, length in enumerate((5, 40, 150))
    ]
    engine = {
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        "dtype": config["torch_dtype"],
        "enforce_eager": True,
        "max_model_len": 512,
        "max_num_seqs": 4,
        "max_num_batched_tokens": 128,
    }
    result = run(Run(str(folder), calls, engine, EVERYTHING), directory)
    assert result.status["probe_errors"] == 0, result.stderr[-2000:]
    for call in calls:
        assert len(result.rows_of(call.id)) == 6
    return result


def _measured(result, signal):
    return np.isfinite(result.block(signal)).all(axis=0)


@pytest.mark.parametrize(("config", "layers"), [(LATENT, []), (HYBRID, [1])], ids=["latent keys", "hybrid"])
def test_streams_and_outputs_are_measured_and_attention_where_there_is_any(config, layers, tmp_path):
    result = _served(config, tmp_path)
    signals = dict.fromkeys(column[0] for column in result.columns)
    assert {"residual.log_rms", "residual.projection", "output.entropy", "sampler.greedy_mismatch"} <= set(
        signals
    )
    for signal in signals:
        if signal not in NOT_EVERYWHERE:
            assert _measured(result, signal).all(), signal
    streams = {column[1] for column in result.columns if column[0] == "residual.log_rms"}
    assert streams == {0, 1, 2}
    assert sorted({column[1] for column in result.columns if column[0] == "attention.entropy"}) == layers
    (said,) = result.status["disabled"]
    assert said["reason"] == "unsupported_attention"
    assert said["signal"] == ("attention.some_layers" if layers else "attention")
    assert ("(MLA)" in said["detail"]) == (not layers)

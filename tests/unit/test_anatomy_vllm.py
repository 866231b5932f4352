"""Decoders of vLLM, built without weights: latent keys, states beside attention, windows, an encoder beside them."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import vllm
from vllm.config import set_current_vllm_config
from vllm.distributed import (
    destroy_distributed_environment,
    destroy_model_parallel,
    init_distributed_environment,
    initialize_model_parallel,
)
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.utils.torch_utils import set_default_torch_dtype

from introspan.capture.model.anatomy import Form, survey
from introspan.capture.model.attention import refusal

pytestmark = pytest.mark.thorough  # vLLM's models take seconds to import

LAYERS = 4
_SMALL = {
    "vocab_size": 512, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 1024,
    "torch_dtype": "float32",
}  # fmt: skip
_EXPERTS = {"num_experts_per_tok": 1, "moe_intermediate_size": 64}
_LATENT = {
    "num_key_value_heads": 4, "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32,
    "n_routed_experts": 2, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": LAYERS,
}  # fmt: skip
_STATES = {
    "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_n_heads": 8, "mamba_d_head": 32,
    "mamba_n_groups": 1,
}  # fmt: skip
_WINDOWS = {
    "query_pre_attn_scalar": 32, "sliding_window": 96, "layer_types": ["sliding_attention", "full_attention"] * 2,
}  # fmt: skip

MODELS = {
    "DeepseekV2": _EXPERTS | _LATENT | {"model_type": "deepseek_v2", "q_lora_rank": None},
    "DeepseekV3": _EXPERTS | _LATENT | {"model_type": "deepseek_v3", "q_lora_rank": 64},
    "Jamba": {
        "model_type": "jamba", "attn_layer_period": 4, "attn_layer_offset": 2, "expert_layer_period": 2,
        "expert_layer_offset": 1, "num_experts": 2, "num_experts_per_tok": 1, "mamba_d_state": 8, "mamba_d_conv": 4,
        "mamba_expand": 2, "mamba_dt_rank": 8, "use_mamba_kernels": False,
    },
    "Mamba": {"model_type": "mamba", "state_size": 8, "conv_kernel": 4, "expand": 2, "time_step_rank": 8},
    "Mamba2": {"model_type": "mamba2", "state_size": 16, "num_heads": 8, "n_groups": 1, "conv_kernel": 4},
    "NemotronH": {
        "model_type": "nemotron_h", "hybrid_override_pattern": "M*M-", "mamba_num_heads": 8, "mamba_head_dim": 32,
        "ssm_state_size": 16, "n_groups": 1, "conv_kernel": 4, "attention_head_dim": 32, "mlp_hidden_act": "relu2",
    },
    "GraniteMoeHybrid": _STATES | {
        "model_type": "granitemoehybrid", "layer_types": ["mamba", "attention", "mamba", "mamba"],
        "num_local_experts": 2, "num_experts_per_tok": 1, "shared_intermediate_size": 64, "attention_multiplier": 0.1,
        "position_embedding_type": "rope",
    },
    "FalconH1": _STATES | {"model_type": "falcon_h1", "mamba_d_ssm": 256},
    "Zamba2": {
        "model_type": "zamba2", "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_ngroups": 1,
        "n_mamba_heads": 8, "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "hybrid_layer_ids": [1, 3],
        "num_mem_blocks": 1, "attention_hidden_size": 256, "attention_head_dim": 64, "adapter_rank": 8,
        "use_shared_attention_adapter": False,
    },
    "Qwen3Next": _EXPERTS | {
        "model_type": "qwen3_next", "layer_types": ["linear_attention"] * 3 + ["full_attention"], "num_experts": 2,
        "shared_expert_intermediate_size": 64, "linear_num_key_heads": 2, "linear_num_value_heads": 2,
        "linear_key_head_dim": 32, "linear_value_head_dim": 32, "linear_conv_kernel_dim": 4,
        "partial_rotary_factor": 0.5,
    },
    "Lfm2": {
        "model_type": "lfm2", "layer_types": ["conv", "full_attention"] * 2, "block_dim": 128, "block_ff_dim": 256,
        "block_auto_adjust_ff_dim": False, "conv_L_cache": 3, "conv_dim": 128, "conv_dim_out": 128,
        "conv_bias": False, "norm_eps": 1e-5,
    },
    "Gemma2": _WINDOWS | {"model_type": "gemma2", "attn_logit_softcapping": 50.0},
    "Gemma3": _WINDOWS | {"model_type": "gemma3_text"},
    "GptOss": _WINDOWS | {"model_type": "gpt_oss", "num_local_experts": 2, "num_experts_per_tok": 1},
    "Whisper": {
        "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", "d_model": 128,
        "encoder_layers": LAYERS, "decoder_layers": LAYERS, "encoder_attention_heads": 4, "pad_token_id": 0,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256, "num_mel_bins": 8,
        "max_source_positions": 64, "max_target_positions": 64,
    },
}  # fmt: skip

NONE, SEVERAL = (f"a layer has {n} attention modules, exactly 1 is understood" for n in (0, 2))
EVERY = list(range(LAYERS))
WHY = {
    "DeepseekV2": ([], ("keeps latent keys (MLA)",)),
    "DeepseekV3": ([], ("keeps latent keys (MLA)",)),
    "Jamba": ([2], (NONE,)),
    "Mamba": ([], (NONE,)),
    "Mamba2": ([], (NONE,)),
    "NemotronH": ([1], (NONE,)),
    "GraniteMoeHybrid": ([1], (NONE,)),
    "FalconH1": (EVERY, ()),
    "Zamba2": ([], (NONE, SEVERAL)),
    "Qwen3Next": ([3], (NONE,)),
    "Lfm2": ([1, 3], (NONE,)),
    "Gemma2": (EVERY, ()),
    "Gemma3": (EVERY, ()),
    "GptOss": (EVERY, ()),
    "Whisper": ([], (SEVERAL,)),
}
"""Layers whose attention is measured, and what is said of the others."""


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Makes a model's layers on the meta device, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_PLUGINS", "")
        # A process of its own that looks at the class takes eight seconds for each.
        patch.setattr("vllm.model_executor.models.registry._run_in_subprocess", lambda look: look())
        meeting = tmp_path_factory.mktemp("ranks") / "meeting"
        is_first = True

        def make(name: str) -> torch.nn.Module:
            nonlocal is_first
            folder = tmp_path_factory.mktemp(name)
            config = _SMALL | {"architectures": [f"{name}ForCausalLM"]} | MODELS[name]
            (folder / "config.json").write_text(json.dumps(config))
            engine = EngineArgs(
                str(folder), load_format="dummy", enforce_eager=True, skip_tokenizer_init=True
            )
            made = engine.create_engine_config()
            with set_current_vllm_config(made):
                if is_first:
                    init_distributed_environment(1, 0, f"file://{meeting}", 0, "gloo")
                    initialize_model_parallel()
                    is_first = False
                with torch.device("meta"), set_default_torch_dtype(torch.float32):
                    return initialize_model(vllm_config=made)

        yield make
        destroy_model_parallel()
        destroy_distributed_environment()


@pytest.mark.parametrize("name", MODELS)
def test_streams_are_read_at_every_layer_and_attention_is_measured_or_refused_with_the_reason(name, build):
    found = survey(build(name), LAYERS)
    measured, why = WHY[name]
    assert sorted(found.streams) == [*EVERY, LAYERS]
    assert sorted(found.attention) == measured
    said = {entry.signal: entry.detail for entry in found.refused}
    signal = "attention.some_layers" if measured else "attention"
    assert set(said) == ({signal} if why else set())
    assert all(reason in said[signal] for reason in why)


def _implementations(folder: str) -> set[str]:
    """Classes that compute attention, by what their files say: most cannot be imported without a GPU."""
    backends = Path(vllm.__file__).parent / "v1" / "attention" / "backends"
    text = "\n".join(path.read_text() for path in (backends / folder).glob("*.py"))
    return set(re.findall(r"^class (\w+Impl)\b", text, re.MULTILINE))


def test_every_implementation_of_latent_keys_is_refused_as_such():
    names = _implementations("mla")
    assert {"FlashMLAImpl", "CutlassMLAImpl", "TritonMLAImpl", "FlashInferMLAImpl"} <= names
    assert {refusal([_attention(name)]) for name in names} == {
        f"{name} keeps latent keys (MLA)" for name in names
    }


@pytest.mark.parametrize("kind", ["encoder", "encoder_only", "encoder_decoder"])
@pytest.mark.parametrize(
    "name", ["FlashAttentionImpl", "TritonAttentionImpl", "CPUAttentionBackendImpl", "FlashInferImpl"]
)
def test_attention_that_looks_ahead_or_at_another_input_is_refused_on_every_backend(name, kind):
    assert refusal([_attention(name, kind)]) == f"attention of type {kind} is not causal"


def _attention(name: str, kind: str = "decoder"):
    return SimpleNamespace(impl=type(name, (), {"attn_type": kind, "head_size": 64})())


def test_an_encoder_of_as_many_layers_is_not_taken_for_the_decoder(build):
    model = build("Whisper")
    found = survey(model, LAYERS)
    assert [found.streams[layer].module for layer in EVERY] == list(model.model.decoder.layers)
    assert {found.streams[layer].form for layer in EVERY} == {Form.LAYER_INPUT}
    assert found.streams[LAYERS].module is model.model.decoder.layer_norm


def test_layers_of_a_window_and_layers_without_one_keep_their_own(build):
    found = survey(build("Gemma3"), LAYERS)
    windows = [found.attention[layer].module.impl.sliding_window for layer in EVERY]
    assert windows[0] == windows[2] != windows[1] == windows[3]

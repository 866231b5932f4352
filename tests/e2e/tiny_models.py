"""A folder in, tiny random checkpoints of five model families out, for serving and for reference alike.

Weights are drawn wide enough that heads are sharp and layers differ: initial weights as trained models start from
them would make every head's entropy ln n and hide mistakes.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma3TextConfig,
    GraniteConfig,
    LlamaConfig,
    MixtralConfig,
    PretrainedConfig,
)

VOCABULARY = 512
SERVED = {"skip_tokenizer_init": True, "num_gpu_blocks_override": 256}
"""How an engine serves them: the gigabyte of cache that it takes otherwise takes a second to clear and to give back."""
_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def llama() -> PretrainedConfig:
    """Fused norms, grouped queries."""
    return LlamaConfig(**_COMMON, num_hidden_layers=3, intermediate_size=256, head_dim=32)


def gemma3() -> PretrainedConfig:
    """Sliding window in three layers of four, norms on queries and keys, scaled embeddings."""
    return Gemma3TextConfig(
        **_COMMON,
        num_hidden_layers=4,
        intermediate_size=256,
        head_dim=32,
        query_pre_attn_scalar=32,
        sliding_window=96,
        layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
    )


def granite() -> PretrainedConfig:
    """Multipliers on embeddings, residuals, attention and logits; norms that are not fused."""
    return GraniteConfig(
        **_COMMON,
        num_hidden_layers=3,
        intermediate_size=256,
        embedding_multiplier=6.0,
        residual_multiplier=0.4,
        attention_multiplier=0.1,
        logits_scaling=2.0,
    )


def mixtral() -> PretrainedConfig:
    """Four experts, two a token."""
    return MixtralConfig(
        **_COMMON,
        num_hidden_layers=2,
        intermediate_size=128,
        head_dim=32,
        num_local_experts=4,
        num_experts_per_tok=2,
    )


def cohere() -> PretrainedConfig:
    """Parallel residual: attention and MLP both read the layer's one norm."""
    return CohereConfig(**_COMMON, num_hidden_layers=3, intermediate_size=256, logit_scale=0.25)


FAMILIES: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": llama,
    "gemma3": gemma3,
    "granite": granite,
    "mixtral": mixtral,
    "cohere": cohere,
}


def write(family: str, directory: Path, seed: int = 7) -> Path:
    """A checkpoint of a family in float32, the same for the same seed."""
    model = AutoModelForCausalLM.from_config(FAMILIES[family](), dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.empty_like(parameter).normal_(generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(noise * 0.15)
            else:
                parameter.add_(noise * 0.1)
    model.save_pretrained(directory)
    return directory


def write_talking(like: Path, directory: Path, layers: int = 3) -> Path:
    """A small random model with the tokenizer and the chat template of another, for a server that takes text."""
    vocabulary = json.loads((like / "config.json").read_text())["vocab_size"]
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=64, num_hidden_layers=layers, intermediate_size=128, head_dim=32,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=2048, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(7)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(directory)
    for file in like.iterdir():
        if "token" in file.name or "template" in file.name or file.name in ("vocab.json", "merges.txt"):
            shutil.copy(file, directory)
    return directory

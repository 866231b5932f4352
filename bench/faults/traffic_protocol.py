"""What the parts about traffic do and what they are held against, fixed before the run: as JSON, and its hash."""

import hashlib
import json
from pathlib import Path
from typing import Any

# Any: JSON, whose leaves are numbers and text.
TRAFFIC: dict[str, Any] = {
    "seed": 20261,
    "engine": "vLLM, SmolLM2-135M-Instruct float32, batches of 16, blocks of 32 tokens, every decoded token measured",
    "sampler": {
        "temperatures": [1.5, 1.1, 1.0],
        "draws_a_position": 60,
        "instances": 20,
        "ways": {
            "one token a segment": {"measured": 1, "delivered": 1, "segments_a_second": 4},
            "8 of 64 tokens, the default": {"measured": 8, "delivered": 64, "segments_a_second": 4},
            "all of 64 tokens": {"measured": 64, "delivered": 64, "segments_a_second": 4},
        },
        "claimed_way": "one token a segment",
        "most_tokens": {"1.5": 8000, "1.1": 8000, "1.0": 8000},
    },
    "loops": {"healthy": 3000, "instances_a_period": 8, "token_stride": 24},
    "requests": {
        "chosen_on": ["language-es", "language-fr", "language-it", "encoding-base64", "kv-swapped"],
        "chosen_by": "least AUROC over those of its kind, the first where equal",
        "scores": [
            "distance from the class",
            "largest z, prompt",
            "largest z, decoded",
            "distance, decoded",
            "largest of all, as ranks",
        ],
        "output_scores": [
            "perplexity of the prompt",
            "entropy, prompt",
            "margin, prompt",
            "log-probability, answer",
            "entropy, answer",
        ],
    },
    "population": {
        "reference": 20000,
        "kinds": {
            "template": {"share": 0.4, "reference": "real", "most_requests": 960},
            "16 %": {"share": 0.16, "reference": "simulated", "most_requests": 1600},
            "16 %, small reference": {"share": 0.16, "reference": "real", "most_requests": 1600},
            "0.8 %": {"share": 0.008, "reference": "simulated", "most_requests": 7040},
        },
        "a_tick": 16,
        "sets": [
            "kv-swapped",
            "kv-scaled",
            "kv-stale",
            "language-de",
            "language-hi",
            "encoding-hex",
            "code",
            "suffix",
        ],
        "instances": 3,
    },
    "nulls": {"hours": 4.0, "a_tick": 16},
    "again": ["claims", "questions", "instructions"],
    "bootstrap": {"resamples": 2000, "level": 0.95},
    "targets": {
        "sampled_tokens": {"1.5": 100, "1.1": 2000},
        "loops": 0.95,
        "auroc_low": 0.95,
        "template_ticks": 30,
        "requests": {"16 %": 300, "0.8 %": 3500},
        "false_alarms_over_expected": 1.0,
        "null_requests": 3000,
    },
}


AMENDED = (
    "The protocol was amended while the bench was built, after first figures had been seen: a score more on either "
    "side, references of two sizes, wrong templates in the share of chat alone. What settings are chosen on was not "
    "changed."
)
_SEAL = Path(__file__).with_name("traffic_protocol.sha256")


def check_traffic_seal(seal: Path = _SEAL) -> None:
    """Raises ValueError where the protocol is not the one that was written down."""
    sealed = seal.read_text(encoding="utf-8").strip()
    if sealed != traffic_digest():
        raise ValueError(
            f"the protocol's hash is {traffic_digest()}, but {seal.name} says {sealed}: write the new one there and "
            "commit it before anything is measured"
        )


def traffic_digest() -> str:
    """sha256 of the protocol as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(TRAFFIC, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

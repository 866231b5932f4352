"""A configuration in, a folder that vLLM serves with weights that it draws out; and the small real model."""

import json
import sys
from pathlib import Path
from typing import Any

from demo.model import cache_folder, prepare


def drawn(config: dict[str, Any], folder: Path) -> Path:
    """A folder with a model's configuration alone. To be served with `DRAWN`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    return folder


DRAWN: dict[str, Any] = {"load_format": "dummy", "skip_tokenizer_init": True}
"""How an engine is told that weights and tokeniser are not there."""


def real() -> Path:
    """SmolLM2-135M-Instruct, fetched and converted once."""
    return prepare(cache_folder(), lambda line: print(line, file=sys.stderr))


def prompts(count: int) -> list[list[int]]:
    """Prompts of the real model's vocabulary, of different lengths, the same each time."""
    import numpy as np

    draw = np.random.default_rng(3)
    return [draw.integers(100, 40_000, 16 + 37 * i).tolist() for i in range(count)]

"""A model's folder in, another with its weights, positions or tokenizer changed out; what stays is linked."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from bench.faults.weights import Change

_WEIGHTS, _CONFIG, _TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"


def with_change(model: Path, folder: Path, change: Change) -> Path:
    """Its matrices changed, as of a checkpoint that was made so."""
    weights = load_file(model / _WEIGHTS)
    healthy = {name: one for name, one in weights.items() if one.ndim == 2}
    with torch.no_grad():
        changed = {name: one.contiguous() for name, one in change.edit(healthy)}
    return _other(model, folder, _WEIGHTS, lambda path: save_file(weights | changed, path, {"format": "pt"}))


def with_theta(model: Path, folder: Path, factor: float) -> Path:
    """RoPE's base so many times as large."""
    config = json.loads((model / _CONFIG).read_text("utf-8"))
    config["rope_parameters"]["rope_theta"] *= factor
    return _other(model, folder, _CONFIG, lambda path: path.write_text(json.dumps(config), "utf-8"))


def with_other_ids(model: Path, folder: Path) -> Path:
    """A tokenizer that gives every ordinary token the next one's id, as one that belongs to another model."""
    tokenizer = json.loads((model / _TOKENIZER).read_text("utf-8"))
    special = {token["id"] for token in tokenizer["added_tokens"]}
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    ordinary = sorted(set(vocabulary.values()) - special)
    after = dict(zip(ordinary, [*ordinary[1:], ordinary[0]], strict=True))
    tokenizer["model"]["vocab"] = {text: after.get(i, i) for text, i in vocabulary.items()}
    return _other(model, folder, _TOKENIZER, lambda path: path.write_text(json.dumps(tokenizer), "utf-8"))


def _other(model: Path, folder: Path, name: str, write: Callable[[Path], object]) -> Path:
    """A folder with all files of the model, of which one is written anew."""
    folder.mkdir()
    for path in model.iterdir():
        if path.name == name:
            write(folder / name)
        else:
            (folder / path.name).symlink_to(path)
    return folder

"""A model's directory in, a digest that changes when the model does out. Reads files; needs no torch.

What goes in: configuration, tokenizer and chat template as they are on disk; name, type and shape of each
tensor of its safetensors files; and up to SAMPLE_BYTES of each tensor's bytes, in evenly spaced pieces of
PIECE_BYTES, both ends included. The same tensors split over other files give the same digest.

What it cannot see: bytes between the pieces (a tensor up to SAMPLE_BYTES is read whole, in models of
thousands of tensors less of each, see BUDGET_BYTES); what happens after loading (quantisation, reloads, faults
of memory: canaries see those); engine flags and adapters, unless the caller names them in `extra`. A
configuration that is only laid out differently counts as another one.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

SAMPLE_BYTES = 64 * 1024
"""Most bytes read of one tensor."""

PIECE_BYTES = 4 * 1024
"""Least bytes read at once. Sixteen pieces meet any fault as wide as a fifteenth of a tensor."""

BUDGET_BYTES = 64 * 1024 * 1024
"""Most bytes read of all tensors: keeps a model of 100,000 tensors within two seconds."""

PARTIAL = "partial-"
"""Prefix of a digest that no weights went into, because they are not in safetensors files."""

_DESCRIPTIONS = (
    "config.json",
    "generation_config.json",
    "params.json",
    "*token*.json",
    "*.model",
    "vocab.*",
    "merges.txt",
    "*.tiktoken",
    "chat_template*",
    "additional_chat_templates/*",
    "preprocessor_config.json",
)
_HEADER_BYTES = 100_000_000  # the format's own limit


class _Tensor(NamedTuple):
    name: str
    file: Path
    described: str  # dtype and shape, as in the header
    start: int
    size: int


def fingerprint(directory: Path | None, extra: Mapping[str, str] | None = None) -> str:
    """Lower-case hex SHA-256 of the model in a directory, with PARTIAL before it where it has no safetensors.

    extra is hashed along: what the engine was told beside the directory, such as another configuration; without
    a directory, it alone.
    Raises OSError if a file cannot be read and ValueError naming the file if it is not a safetensors file.
    """
    digest = hashlib.sha256(b"introspan-fingerprint-1")
    for name, text in sorted((extra or {}).items()):
        _add(digest, name.encode(), text.encode())
    if directory is None:
        return PARTIAL + digest.hexdigest()
    for path in _described(directory):
        _add(digest, path.relative_to(directory).as_posix().encode(), path.read_bytes())
    tensors = sorted(tensor for path in directory.glob("*.safetensors") for tensor in _tensors(path))
    sample_bytes = min(SAMPLE_BYTES, BUDGET_BYTES // max(1, len(tensors)))
    for tensor, sample in _samples(tensors, sample_bytes):
        _add(digest, tensor.name.encode(), tensor.described.encode(), sample)
    return digest.hexdigest() if tensors else PARTIAL + digest.hexdigest()


def _described(directory: Path) -> list[Path]:
    found = {path for pattern in _DESCRIPTIONS for path in directory.glob(pattern)}
    return sorted(path for path in found if path.is_file())


# hashlib has no public name for the type of its objects.
def _add(digest: "hashlib._Hash", *parts: bytes) -> None:
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)


def _tensors(path: Path) -> Iterator[_Tensor]:
    """The tensors of one file, from its header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(_HEADER_BYTES, path.stat().st_size):
            raise ValueError(f"{path} must be a safetensors file, got a header of {length} bytes")
        try:
            header = json.loads(file.read(length))
            for name, entry in header.items():
                if name != "__metadata__":
                    start, end = entry["data_offsets"]
                    described = f"{entry['dtype']} {entry['shape']}"
                    yield _Tensor(name, path, described, 8 + length + start, end - start)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} must be a safetensors file, got a header that fails with {error!r}"
            ) from error


def _samples(tensors: list[_Tensor], sample_bytes: int) -> Iterator[tuple[_Tensor, bytes]]:
    """Each tensor with its sampled bytes; files are opened once each."""
    handles: dict[Path, int] = {}
    try:
        for tensor in tensors:
            if tensor.file not in handles:
                handles[tensor.file] = os.open(tensor.file, os.O_RDONLY)
            pieces = [os.pread(handles[tensor.file], n, at) for at, n in _pieces(tensor, sample_bytes)]
            sample = b"".join(pieces)
            if len(sample) != min(tensor.size, sample_bytes):
                raise ValueError(f"{tensor.file} must hold all of {tensor.name}, got a file that ends before")
            yield tensor, sample
    finally:
        for handle in handles.values():
            os.close(handle)


def _pieces(tensor: _Tensor, sample_bytes: int) -> list[tuple[int, int]]:
    """Offset and length of what is read of a tensor; lengths add up to sample_bytes or the tensor's size."""
    if tensor.size <= sample_bytes:
        return [(tensor.start, tensor.size)]
    count = max(1, sample_bytes // PIECE_BYTES)
    length, rest = divmod(sample_bytes, count)
    lengths = [length] * (count - 1) + [length + rest]
    last = tensor.size - lengths[-1]
    return [(tensor.start + i * last // max(1, count - 1), n) for i, n in enumerate(lengths)]

"""Claims on the model fingerprint: what changes it, what does not, and how long it takes."""

import json
import time
from pathlib import Path

import pytest

from introspan.capture.model.fingerprint import PARTIAL, PIECE_BYTES, SAMPLE_BYTES, fingerprint

SMALL = {"a.weight": bytes(range(256)) * 4, "b.weight": b"\x07" * 1_000}
LARGE = {"w": bytes(1_000_000)}


def save(path: Path, tensors: dict[str, bytes], *, metadata: bool = False) -> None:
    """A safetensors file, as the format's specification says."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}} if metadata else {}
    offset = 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(tensors.values()))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    save(tmp_path / "model.safetensors", SMALL)
    return tmp_path


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_it_is_the_hex_sha256_of_the_same_model_every_time(model):
    first = fingerprint(model)
    assert first == fingerprint(model)
    assert len(first) == 64
    assert set(first) <= set("0123456789abcdef")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "chat_template.jinja"])
def test_a_changed_missing_or_renamed_description_changes_it(model, name):
    before = fingerprint(model)
    path = model / name
    text = path.read_text()
    path.write_text(text + " ")
    changed = fingerprint(model)
    path.unlink()
    missing = fingerprint(model)
    (model / f"added_tokens{name.count('.')}.json").write_text(text)
    assert len({before, changed, missing, fingerprint(model)}) == 4


def test_every_byte_of_a_small_tensor_counts(model):
    seen = {fingerprint(model)}
    size = (model / "model.safetensors").stat().st_size
    for at in (size - 2_024, size - 1_001, size - 1_000, size - 1):
        flip(model / "model.safetensors", at)
        seen.add(fingerprint(model))
    assert len(seen) == 5


def test_a_large_tensor_counts_at_both_ends_and_wherever_a_fifteenth_of_it_is_wrong(model):
    path = model / "model.safetensors"
    save(path, LARGE)
    before = fingerprint(model)
    start = path.stat().st_size - 1_000_000
    for at in (start, path.stat().st_size - 1):
        flip(path, at)
        assert fingerprint(model) != before
        flip(path, at)
    assert fingerprint(model) == before
    width = 1_000_000 // 15
    for first in range(0, 1_000_000 - width, 7_919):
        data = bytearray(1_000_000)
        data[first : first + width] = b"\x01" * width
        save(path, {"w": bytes(data)})
        assert fingerprint(model) != before


def test_bytes_between_the_pieces_are_not_seen_as_documented(model):
    path = model / "model.safetensors"
    save(path, LARGE)
    before = fingerprint(model)
    flip(path, path.stat().st_size - 1_000_000 + PIECE_BYTES)
    assert fingerprint(model) == before


@pytest.mark.parametrize(
    "tensors",
    [
        {"A.weight": SMALL["a.weight"], "b.weight": SMALL["b.weight"]},
        {"a.weight": SMALL["a.weight"]},
        {"a.weight": SMALL["b.weight"], "b.weight": SMALL["a.weight"]},
        {"a.weight": SMALL["a.weight"] + b"\x07", "b.weight": SMALL["b.weight"][1:]},
    ],
)
def test_names_shapes_and_places_of_tensors_count(model, tensors):
    before = fingerprint(model)
    save(model / "model.safetensors", tensors)
    assert fingerprint(model) != before


def test_the_element_type_counts(model):
    before = fingerprint(model)
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"U8"', b'"I8"'))
    assert fingerprint(model) != before


def test_how_tensors_are_split_over_files_ordered_or_annotated_does_not_count(model):
    before = fingerprint(model)
    (model / "model.safetensors").unlink()
    save(model / "model-00001-of-00002.safetensors", {"b.weight": SMALL["b.weight"]}, metadata=True)
    save(model / "model-00002-of-00002.safetensors", {"a.weight": SMALL["a.weight"]})
    assert fingerprint(model) == before


def test_what_the_engine_was_told_beside_counts(model):
    told = [None, {"chat_template": "x"}, {"chat_template": "y"}, {"chat_templatex": ""}]
    assert len({fingerprint(model, extra) for extra in told}) == 4


def test_a_model_without_safetensors_says_that_its_weights_are_not_in_it(model):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    partial = fingerprint(model)
    assert partial.startswith(PARTIAL)
    (model / "config.json").write_text("{}")
    assert fingerprint(model) != partial


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 100,
        (10).to_bytes(8, "little") + b"not json!!",
        (2).to_bytes(8, "little") + b"[]",
        (7).to_bytes(8, "little") + b'{"w":1}',
    ],
)
def test_a_file_that_is_no_safetensors_is_named(model, data):
    (model / "model.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match=r"model\.safetensors must be a safetensors file"):
        fingerprint(model)


def test_a_file_that_ends_early_is_named(model):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"model\.safetensors must hold all of b\.weight"):
        fingerprint(model)


def test_a_model_of_many_large_tensors_takes_less_than_two_seconds(model):
    count, size = 2_000, 100 * SAMPLE_BYTES
    header = {
        f"layer.{i}": {"dtype": "U8", "shape": [size], "data_offsets": [i * size, (i + 1) * size]}
        for i in range(count)
    }
    text = json.dumps(header).encode()
    with (model / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + count * size)  # sparse: 13 GB of zeros that take no disk
    begin = time.process_time()  # not the wall's: whoever else is running does not count
    fingerprint(model)
    assert time.process_time() - begin < 2.0

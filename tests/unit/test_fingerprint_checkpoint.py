"""Claims on which files stand for a served model."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from introspan.capture.model.checkpoint import fingerprint_of
from introspan.capture.model.fingerprint import PARTIAL

HEADER = b'{"w": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}'


def served(name: Path | str, tokenizer: str | None = None, revision: str | None = None, **config: object):
    """What vLLM's ModelConfig says of a model, as far as it matters here."""
    hf_config = SimpleNamespace(
        to_dict=lambda: {"transformers_version": "5", "_name_or_path": str(name), **config}
    )
    return SimpleNamespace(
        model=str(name), tokenizer=tokenizer or str(name), revision=revision, hf_config=hf_config
    )


def save(directory: Path, weights: bytes) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(len(HEADER).to_bytes(8, "little") + HEADER + weights)
    return directory


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A Hugging Face cache that holds two revisions of acme/tiny."""
    repository = tmp_path / "hub" / "models--acme--tiny"
    for commit, weights in (("a" * 40, b"ab"), ("b" * 40, b"ac")):
        save(repository / "snapshots" / commit, weights)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    return tmp_path / "hub"


def test_the_same_files_are_the_same_model_wherever_they_lie(tmp_path):
    one = fingerprint_of(served(save(tmp_path / "one", b"ab")))
    assert one == fingerprint_of(served(save(tmp_path / "two", b"ab")))
    assert one != fingerprint_of(served(save(tmp_path / "three", b"ac")))
    assert not one.startswith(PARTIAL)


def test_a_model_of_the_hub_is_the_revision_that_was_downloaded(cache, tmp_path):
    main = fingerprint_of(served("acme/tiny"), str(cache))
    assert main == fingerprint_of(served(save(tmp_path / "local", b"ab")))
    assert main != fingerprint_of(served("acme/tiny", revision="b" * 40), str(cache))


def test_an_overridden_configuration_or_another_tokenizer_is_another_model(tmp_path):
    path = save(tmp_path / "one", b"ab")
    told = [
        served(path),
        served(path, rope_theta=1e5),
        served(path, rope_theta=1e6),
        served(path, tokenizer="x"),
    ]
    assert len({fingerprint_of(model) for model in told}) == 4


@pytest.mark.parametrize("name", ["acme/absent", "s3://bucket/model", "not a name at all"])
def test_a_model_whose_files_are_not_here_is_known_by_its_configuration_and_says_so(cache, name):
    found = fingerprint_of(served(name, hidden_size=8), str(cache))
    assert found.startswith(PARTIAL)
    assert found != fingerprint_of(served(name, hidden_size=9), str(cache))


def test_a_model_that_is_one_file_counts_by_its_name_and_size(tmp_path):
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"1234")
    before = fingerprint_of(served(file))
    file.write_bytes(b"12345")
    assert before.startswith(PARTIAL)
    assert before != fingerprint_of(served(file))

"""What end-to-end tests share: the reference model, and a place to import their own modules from."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def huggingface(model_directory):
    from reference import HuggingFace

    return HuggingFace(model_directory)


@pytest.fixture(scope="session")
def tokenizer(model_directory):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_directory)

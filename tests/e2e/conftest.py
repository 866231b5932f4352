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


@pytest.fixture(scope="session")
def deployment(tmp_path_factory, model_directory, free_port, prometheus_program):
    """vLLM, collector and Prometheus; test_server_outages.py leaves capture switched off when it ends."""
    from deployment import deployed

    with deployed(
        tmp_path_factory.mktemp("deployment"), model_directory, free_port, prometheus_program
    ) as running:
        yield running


@pytest.fixture(scope="session")
def collector(deployment):
    """The collector of the deployment."""
    return deployment.collector

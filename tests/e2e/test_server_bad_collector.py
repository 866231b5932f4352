"""Servers whose collector is absent, or answers garbage, from their start on: they answer as one without Introspan."""

import re

import httpx
import pytest
from bad_collectors import BAD_COLLECTORS
from client import FIXED, choices
from deployment import serving_soon
from tiny_models import write_talking

from tests.patience import eventually

# One process has them all: the answers that they are held against are taken once.
pytestmark = pytest.mark.xdist_group("bad collector")


@pytest.fixture(scope="module")
def tiny(model_directory, tmp_path_factory):
    return write_talking(model_directory, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def without(tiny, tmp_path_factory, free_port):
    """What a server answers that never loads Introspan."""
    with serving_soon(tiny, tmp_path_factory.mktemp("off"), free_port(), {"VLLM_PLUGINS": "none"}) as server:
        return choices(server, FIXED)


@pytest.mark.parametrize("collector", ["absent", "babbling"])
def test_a_server_that_never_had_a_collector_answers_the_same_bits_and_says_once_why_it_lost_what(
    collector, tiny, without, tmp_path, free_port
):
    log = tmp_path / "vllm.log"
    with BAD_COLLECTORS[collector]() as endpoint:
        environment = {"INTROSPAN_ENDPOINT": endpoint, "INTROSPAN_TIMEOUT": "1"}
        with serving_soon(tiny, tmp_path, free_port(), environment) as server:
            assert choices(server, FIXED) == without
            why = re.compile(rf"introspan export to {endpoint}: (\w+): .*; logged once")
            eventually(lambda: why.search(log.read_text()))
            assert choices(server, FIXED) == without, "nor later"
            assert httpx.get(f"http://{server}/health").status_code == httpx.codes.OK
    reasons = why.findall(log.read_text())
    assert len(reasons) == len(set(reasons))

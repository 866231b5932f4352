"""The canary of a server with two data-parallel engines: each is asked by itself, and named."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from deployment import MODEL, serving
from tiny_models import write_talking

from introspan_collector.suite import NAMES
from tests.collector import Collector
from tests.patience import eventually

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("canary")]

ROUNDS = 3
LAYERS = 3
KEY = "a secret that both sides know"
_INTROSPAN = Path(sys.executable).with_name("introspan")


@pytest.fixture(scope="module")
def tiny(model_directory, tmp_path_factory):
    return write_talking(model_directory, tmp_path_factory.mktemp("tiny"), LAYERS)


@pytest.fixture(scope="module")
def collector(tmp_path_factory, free_port):
    config = f"[detect]\ncanary_rounds = {ROUNDS}\n"
    with Collector(tmp_path_factory.mktemp("parallel"), free_port, config) as running:
        yield running


@pytest.fixture(scope="module")
def server(collector, tiny, free_port):
    environment = {
        "INTROSPAN_ENDPOINT": collector.grpc,
        "INTROSPAN_CANARY_KEY": KEY,
        "INTROSPAN_REPLICA": "host",
    }
    more = ("--data-parallel-size", "2")
    with serving(tiny, collector.folder, free_port(), environment, more=more) as address:
        yield address


def test_both_engines_have_rounds_states_and_baselines_of_their_own(server, collector):
    key_file = collector.folder / "key"
    key_file.write_text(KEY)
    done = subprocess.run(
        [_INTROSPAN, "canary", "--url", f"http://{server}", "--collector", collector.grpc, "--key-file", key_file,
         "--rounds", str(2 * ROUNDS + 1), "--interval", "0s"],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")

    def replicas():
        (canary,) = json.loads(collector.get("/api/v1/canaries", model=MODEL).text)["canaries"]
        return {one["replica"]: one for one in canary["replicas"]}

    eventually(lambda: all(one.get("own_baseline") and one["compared"] for one in replicas().values()), 60)
    found = replicas()
    assert sorted(found) == ["host-dp0", "host-dp1"]
    for rank, one in enumerate(found[name] for name in sorted(found)):
        assert one["data_parallel_rank"] == rank
        assert set(one["prompts"]) == NAMES
        assert (one["has_states"], len(one["layer_ratios"])) == (True, LAYERS + 1)
        assert one["deviating_in_a_row"] == 0
        assert collector.metric("introspan_canary_distance", replica=f"host-dp{rank}") < 8

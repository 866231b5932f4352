"""The canary of a server whose model is spread over stages and ranks: one answer with every layer, as of one worker."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from broken import write_plugin
from deployment import MODEL, serving_soon
from tiny_models import write_talking

from introspan_collector.suite import NAMES
from tests.collector import Collector
from tests.patience import eventually

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("canary")]

ROUNDS = 3
LAYERS = 3
KEY = "a secret that both sides know"
SPREAD = ("--tensor-parallel-size", "2", "--pipeline-parallel-size", "2")
_INTROSPAN = Path(sys.executable).with_name("introspan")


@pytest.fixture(scope="module")
def tiny(model_directory, tmp_path_factory):
    return write_talking(model_directory, tmp_path_factory.mktemp("tiny"), LAYERS)


@pytest.fixture(scope="module")
def collector(tmp_path_factory, free_port):
    config = f"[detect]\ncanary_rounds = {ROUNDS}\n"
    with Collector(tmp_path_factory.mktemp("spread"), free_port, config) as running:
        yield running


def asked(collector, model, port, replica, rounds, more=()):
    """Rounds of the canary against a server of its own, which then ends."""
    key_file = collector.folder / "key"
    key_file.write_text(KEY)
    environment = {
        "INTROSPAN_ENDPOINT": collector.grpc,
        "INTROSPAN_CANARY_KEY": KEY,
        "INTROSPAN_REPLICA": replica,
        **write_plugin(collector.folder / replica, "import ranked\nranked.make_room_for_what_is_handed_on()"),
    }
    with serving_soon(model, collector.folder, port, environment, replica, more) as server:
        done = subprocess.run(
            [_INTROSPAN, "canary", "--url", f"http://{server}", "--collector", collector.grpc,
             "--key-file", key_file, "--rounds", str(rounds), "--interval", "0s"],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        eventually(lambda: known(collector).get(replica, {}).get("compared"), 60)


def known(collector):
    """The canary's standing at each replica."""
    (canary,) = json.loads(collector.get("/api/v1/canaries", model=MODEL).text)["canaries"]
    return {one["replica"]: one for one in canary["replicas"]}


def test_answers_of_a_spread_model_are_held_against_those_of_one_worker_at_every_layer(
    tiny, collector, free_port
):
    asked(collector, tiny, free_port(), "one", ROUNDS + 1)
    asked(collector, tiny, free_port(), "spread", ROUNDS - 1, SPREAD)  # too few for a baseline of its own
    found = known(collector)
    assert sorted(found) == ["one", "spread"], "four workers are one replica"
    spread = found["spread"]
    assert not spread["own_baseline"]
    assert set(spread["prompts"]) == NAMES
    assert (spread["has_states"], len(spread["layer_ratios"])) == (True, LAYERS + 1)
    # Sums over two halves round otherwise than over the whole: it is not zero, and far from what deviates.
    assert 0 < max(spread["layer_ratios"]) <= spread["ratio"] < 1
    assert spread["deviating_in_a_row"] == 0

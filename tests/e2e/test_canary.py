"""The canary of a real server: what comes of it with the key, without it, and of strangers who pose as one."""

import json
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest
from client import COMPLETION, SENTENCE, Ask, talk
from deployment import MODEL, serving

from introspan_wire.canary import XARG, CanaryId, token
from tests.collector import Collector
from tests.patience import eventually

pytestmark = pytest.mark.xdist_group("canary")  # one process: they share a server

ROUNDS = 6
LAYERS = 30
KEY = "a secret that both sides know"
_INTROSPAN = Path(sys.executable).with_name("introspan")


@pytest.fixture(scope="module")
def collector(tmp_path_factory, free_port):
    with Collector(
        tmp_path_factory.mktemp("canary"), free_port, f"[detect]\ncanary_rounds = {ROUNDS}\n"
    ) as running:
        yield running


@pytest.fixture(scope="module")
def server(collector, model_directory, free_port):
    environment = {"INTROSPAN_ENDPOINT": collector.grpc, "INTROSPAN_CANARY_KEY": KEY}
    with serving(model_directory, collector.folder, free_port(), environment) as address:
        yield address


def canary(server, collector, rounds, key_file=None):
    """`introspan canary`, when it has ended."""
    command = [_INTROSPAN, "canary", "--url", f"http://{server}", "--collector", collector.grpc]
    command += ["--rounds", str(rounds), "--interval", "0s"]
    command += [] if key_file is None else ["--key-file", str(key_file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def known(collector):
    found = json.loads(collector.get("/api/v1/canaries").text)["canaries"]
    return found[0] if found else None


@pytest.fixture(scope="module")
def key_file(collector):
    file = collector.folder / "key"
    file.write_text(f"{KEY}\n")
    return file


@pytest.fixture(scope="module")
def with_baseline(server, collector, key_file):
    done = canary(server, collector, ROUNDS, key_file)
    assert (done.returncode, done.stderr) == (0, "")
    eventually(lambda: known(collector)["baseline"], 60)
    return known(collector)


def test_rounds_become_a_baseline_with_the_states_of_every_layer(with_baseline):
    baseline = with_baseline["baseline"]
    assert (baseline["rounds"], baseline["dtype"], with_baseline["problem"]) == (ROUNDS, "float32", "")
    assert baseline["fingerprint"]
    (replica,) = with_baseline["replicas"]
    assert replica["prompts"] == ["chat", "extend", "long", "repeat", "short"]


def test_later_rounds_are_still_while_other_traffic_runs(with_baseline, server, collector, key_file):
    others = Thread(
        target=lambda: [talk(server, *[Ask(SENTENCE * n, COMPLETION) for n in (1, 3, 5)]) for _ in range(3)]
    )
    others.start()
    done = canary(server, collector, 2, key_file)
    others.join()
    assert (done.returncode, done.stderr) == (0, "")
    eventually(lambda: known(collector)["replicas"][0].get("compared"), 60)
    (replica,) = known(collector)["replicas"]
    assert replica["deviating_in_a_row"] == 0
    assert len(replica["layer_ratios"]) == LAYERS + 1
    assert replica["replica"] == with_baseline["replicas"][0]["replica"]
    assert json.loads(collector.get("/api/v1/alarms").text)["alarms"] == []


@pytest.mark.usefixtures("with_baseline")
def test_canaries_are_no_traffic_and_a_forged_one_is(server, collector):
    collector.wait_processed()
    requests = {row["request_id"] for row in collector.observations()}
    assert not any("canary-" in name for name in requests)
    mine = CanaryId("0" * 8, "short", "0123456789abcdef")
    forged = token(b"another secret entirely", mine, [1, 2, 3], 0.0, "0" * 16)
    talk(server, Ask(SENTENCE, COMPLETION, id=str(mine), body={"vllm_xargs": {XARG: forged}}))
    eventually(lambda: any(str(mine) in row["request_id"] for row in collector.observations()), 60)


def seen(collector, name):
    """How many rows of traffic a canary's id came with."""
    collector.wait_processed()
    return len([row for row in collector.observations() if str(name) in row["request_id"]])


def refused(collector, reason):
    return collector.metric("introspan_sdk_dropped_segments_total", reason=reason)


@pytest.mark.usefixtures("with_baseline")
def test_a_token_that_was_read_on_the_way_is_good_for_no_other_text_and_never_twice(server, collector):
    prompt, other = list(range(40, 60)), list(range(50, 90))
    names = [CanaryId("0" * 8, "beside", f"{i:016x}") for i in range(2)]
    mine, stolen = (
        token(KEY.encode(), name, prompt, time.time(), f"{i:016x}") for i, name in enumerate(names)
    )

    def send(name, given, text):
        body = {"prompt": text, "vllm_xargs": {XARG: given}}
        talk(server, Ask("", COMPLETION, id=str(name), body=body))

    before = refused(collector, "canary_repeated"), refused(collector, "canary_refused")
    send(names[0], mine, prompt)
    send(names[1], stolen, other)
    eventually(lambda: seen(collector, names[1]), 60)
    assert not seen(collector, names[0]), "that one was a canary, sent and answered before the other"
    send(names[0], mine, prompt)
    eventually(lambda: seen(collector, names[0]), 60)
    eventually(lambda: refused(collector, "canary_repeated") == before[0] + 1, 30)
    assert refused(collector, "canary_refused") == before[1] + 1


def test_without_the_key_outputs_are_compared_and_it_is_said_that_states_are_missing(
    with_baseline, server, collector
):
    done = canary(server, collector, 1)
    assert done.returncode == 0
    assert "states inside the model are not" in done.stderr
    eventually(lambda: not known(collector)["replicas"][0]["has_states"], 60)
    (one,) = known(collector)["replicas"]
    assert one["compared"]
    assert one["replica"] == with_baseline["replicas"][0]["replica"], "nobody else answers at that address"
    assert one["deviating_in_a_row"] == 0
    assert "INTROSPAN_CANARY_KEY" in known(collector)["problem"]
    assert known(collector)["baseline"] == with_baseline["baseline"]


def test_the_model_is_named_as_the_server_serves_it(with_baseline):
    assert with_baseline["model"] == MODEL

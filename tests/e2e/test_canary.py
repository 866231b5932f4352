"""The canary of a real server: what comes of it with the key, without it, and of strangers who pose as one.

And of requests that the same server sends itself again, while its cache is right and while it is not.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest
from broken import write_plugin
from client import COMPLETION, SENTENCE, Ask, talk, trace
from deployment import MODEL, serving_soon

from introspan_wire.canary import XARG, CanaryId, token
from tests.collector import Collector
from tests.patience import eventually

pytestmark = pytest.mark.xdist_group("canary")  # one process: they share a server

ROUNDS = 6
LAYERS = 30
KEY = "a secret that both sides know"
SPOILED_CACHE = """
from pathlib import Path
from vllm.v1.worker.worker_base import WorkerWrapperBase

flag, original = Path({flag!r}), WorkerWrapperBase.init_device

def init_device(wrapper, *args, **kwargs):
    original(wrapper, *args, **kwargs)
    runner, spoiled = wrapper.worker.model_runner, set()
    sample = runner.sample_tokens

    def sample_tokens(*args, **kwargs):
        output, batch = sample(*args, **kwargs), runner.input_batch
        for row, key in enumerate(batch.req_ids if flag.exists() else ()):
            if key not in spoiled and batch.num_tokens_no_spec[row] > batch.num_prompt_tokens[row]:
                spoiled.add(key)
                first, second = batch.block_table[0].get_numpy_array()[row, :2].tolist()
                for cache in runner.kv_caches:
                    cache[second] = cache[first]
        return output

    runner.sample_tokens = sample_tokens

WorkerWrapperBase.init_device = init_device
"""
"""While a file is there: once a request's prompt was read, its second block in the cache holds what its first does.

That two change places would change nothing: keys know their positions.
"""

_INTROSPAN = Path(sys.executable).with_name("introspan")


@pytest.fixture(scope="module")
def collector(tmp_path_factory, free_port):
    with Collector(
        tmp_path_factory.mktemp("canary"), free_port, f"[detect]\ncanary_rounds = {ROUNDS}\n"
    ) as running:
        yield running


@pytest.fixture(scope="module")
def server(collector, model_directory, free_port):
    environment = {
        "INTROSPAN_ENDPOINT": collector.grpc,
        "INTROSPAN_CANARY_KEY": KEY,
        "INTROSPAN_REPREFILL_RATE": "1",
        **write_plugin(collector.folder / "plugin", SPOILED_CACHE.format(flag=str(flag(collector)))),
    }
    with serving_soon(model_directory, collector.folder, free_port(), environment) as address:
        yield address


def flag(collector):
    """While it is there, the cache is spoiled."""
    return collector.folder / "the-cache-is-spoiled"


def sent_again(server, collector, name, count=2):
    """Distances by layer, of requests one after another, each of a prompt of its own and 60 tokens."""
    found = {}
    for i in range(count):
        traced = trace()
        id_ = f"{name}-{i}"
        text = f"{name} number {i}. " + SENTENCE * 30
        talk(server, Ask(text, COMPLETION, trace=traced, id=id_, tokens=60, stream=bool(i % 2)))

        def compared(id_=id_):
            rows = collector.observations("--request-id", f"cmpl-{id_}", "--signal", "consistency.reprefill")
            return [row for row in rows if row["kind"] == "reprefill"]

        (row,) = eventually(compared, 60)
        assert (row["trace_id"], row["span_id"]) == traced
        found[id_] = {one["layer"]: one["value"] for one in row["values"]}
    return found


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
    eventually(lambda: any(one.get("compared") for one in known(collector)["replicas"]), 60)
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
    forged = token(b"another secret entirely", mine, [1, 2, 3], 8, 0.0, "0" * 16)
    talk(server, Ask(SENTENCE, COMPLETION, id=str(mine), body={"vllm_xargs": {XARG: forged}}))
    eventually(lambda: any(str(mine) in row["request_id"] for row in collector.observations()), 60)


def seen(collector, name):
    """How many rows of traffic a canary's id came with."""
    collector.wait_processed()
    return len([row for row in collector.observations() if str(name) in row["request_id"]])


def refused(collector, reason):
    return collector.metric("introspan_sdk_dropped_requests_total", reason=reason)


@pytest.mark.usefixtures("with_baseline")
def test_a_token_that_was_read_on_the_way_is_good_for_no_other_request_and_never_twice(server, collector):
    prompt, other = list(range(40, 60)), list(range(50, 90))
    names = [CanaryId("0" * 8, "beside", f"{i:016x}") for i in range(3)]
    mine, stolen, drawn = (
        token(KEY.encode(), name, prompt, 8, time.time(), f"{i:016x}") for i, name in enumerate(names)
    )

    def send(name, given, text, temperature=0.0):
        body = {"prompt": text, "temperature": temperature, "vllm_xargs": {XARG: given}}
        talk(server, Ask("", COMPLETION, id=str(name), body=body))

    before = refused(collector, "canary_repeated"), refused(collector, "canary_refused")
    send(names[0], mine, prompt)
    send(names[1], stolen, other)
    send(names[2], drawn, prompt, temperature=1.0)
    eventually(lambda: seen(collector, names[1]) and seen(collector, names[2]), 60)
    assert not seen(collector, names[0]), "that one was a canary, sent and answered before the other"
    send(names[0], mine, prompt)
    eventually(lambda: seen(collector, names[0]), 60)
    eventually(lambda: refused(collector, "canary_repeated") == before[0] + 1, 30)
    assert refused(collector, "canary_refused") == before[1] + 2


def test_without_the_key_outputs_are_compared_and_it_is_said_that_states_are_missing(
    with_baseline, server, collector
):
    done = canary(server, collector, 1)
    assert done.returncode == 0
    assert "states inside the model are not" in done.stderr
    eventually(lambda: not known(collector)["replicas"][0].get("has_states", True), 60)
    (one,) = known(collector)["replicas"]
    assert one["compared"]
    assert one["replica"] == with_baseline["replicas"][0]["replica"], "nobody else answers at that address"
    assert one["deviating_in_a_row"] == 0
    assert "INTROSPAN_CANARY_KEY" in known(collector)["problem"]
    assert known(collector)["baseline"] == with_baseline["baseline"]


def test_the_model_is_named_as_the_server_serves_it(with_baseline):
    assert with_baseline["model"] == MODEL


def test_live_requests_that_the_server_sends_itself_again_are_computed_as_before(server, collector):
    found = sent_again(server, collector, "healthy")
    assert {layer for distances in found.values() for layer in distances} == {LAYERS // 2, LAYERS - 2}
    assert max(value for distances in found.values() for value in distances.values()) < 1e-4
    again = [row for row in collector.observations() if "again" in row["request_id"]]
    assert again == [], "of the request that was sent again nothing else is observed"
    prompts = [row for row in collector.observations("--request-id", "cmpl-healthy-0") if row["segment"] == 0]
    assert sorted(row["kind"] for row in prompts) == ["prompt", "reprefill"]
    assert collector.metric("introspan_consistency_reprefill_count") >= 2 * len(found)


def test_a_block_of_the_cache_that_holds_something_else_is_seen_in_every_request(server, collector):
    flag(collector).touch()
    try:
        found = sent_again(server, collector, "spoiled")
    finally:
        flag(collector).unlink()
    assert min(value for distances in found.values() for value in distances.values()) > 0.03

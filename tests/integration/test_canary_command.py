"""`introspan canary` between a server that gives recorded answers and a real collector: when it asks, and of whom."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from introspan_collector.suite import QUESTIONS
from tests.collector import Collector
from tests.patience import eventually
from tests.served import serve

ROUNDS = 3
_INTROSPAN = Path(sys.executable).with_name("introspan")


@pytest.fixture(scope="module")
def collector(tmp_path_factory, free_port):
    config = f"[detect]\ncanary_rounds = {ROUNDS}\n"
    with Collector(tmp_path_factory.mktemp("collector"), free_port, config) as running:
        yield running


def run(served, collector, rounds, *options, model="m"):
    """`introspan canary`, when it has ended, and how long that took."""
    began = time.monotonic()
    done = subprocess.run(
        [_INTROSPAN, "canary", "--url", served.url, "--collector", collector.grpc, "--model", model,
         "--rounds", str(rounds), *options],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr, time.monotonic() - began


def known(collector, model):
    found = json.loads(collector.get("/api/v1/canaries", model=model).text)["canaries"]
    return found[0] if found else {"baseline": None, "replicas": []}


@pytest.fixture(scope="module")
def served(collector):
    """Asked often enough for a baseline."""
    with serve() as running:
        run(running, collector, ROUNDS, "--interval", "0s")
        eventually(lambda: known(collector, "m")["baseline"], 30)
        yield running


@pytest.fixture
def api(collector):
    return ("--collector-url", f"http://{collector.http}")


def test_the_second_round_is_asked_at_once_where_the_first_deviates(served, collector, api):
    served.calls.clear()
    served.wrong = {0}
    try:
        _, took = run(served, collector, 2, "--interval", "100s", *api)
    finally:
        served.wrong = set()
    assert len(served.asked) == 2 * len(QUESTIONS)
    assert took < 30
    eventually(lambda: any(one["deviating_in_a_row"] == 2 for one in known(collector, "m")["replicas"]), 30)
    (alarm,) = eventually(lambda: json.loads(collector.get("/api/v1/alarms", model="m").text)["alarms"], 30)
    assert alarm["replicas"] == [served.url]


def test_a_round_that_nobody_waits_for_is_asked_at_the_interval(served, collector, api):
    run(served, collector, 1, "--interval", "0s", *api)
    eventually(lambda: not known(collector, "m")["wanted"], 30)
    said, took = run(served, collector, 2, "--interval", "5s", *api)
    assert took > 5
    assert "--collector-url" not in said


def test_it_is_said_once_that_the_collector_does_not_say_what_it_wants(served, collector):
    said, took = run(served, collector, 2, "--interval", "4s", "--collector-url", "http://127.0.0.1:9")
    assert said.count("--collector-url") == 1
    assert took > 4


def test_the_one_of_several_engines_that_deviates_is_named_in_api_metrics_and_alarm(collector, api):
    with serve() as served:
        served.ranks = 2
        run(served, collector, ROUNDS, "--interval", "0s", *api, model="parallel")
        eventually(lambda: known(collector, "parallel")["baseline"], 30)
        served.wrong = {1}
        run(served, collector, 2, "--interval", "0s", *api, model="parallel")
    names = [f"{served.url}-dp0", f"{served.url}-dp1"]

    def deviating():
        replicas = known(collector, "parallel")["replicas"]
        return {one["replica"]: one["deviating_in_a_row"] for one in replicas}

    eventually(lambda: deviating() == dict(zip(names, (0, 2), strict=True)), 30)
    replicas = known(collector, "parallel")["replicas"]
    assert sorted((one["replica"], one["data_parallel_rank"]) for one in replicas) == list(
        zip(names, (0, 1), strict=True)
    )
    distances = [
        collector.metric("introspan_canary_distance", model="parallel", replica=name) for name in names
    ]
    assert distances[0] < 1
    assert distances[1] > 8
    (alarm,) = eventually(
        lambda: json.loads(collector.get("/api/v1/alarms", model="parallel").text)["alarms"], 30
    )
    assert alarm["replicas"] == [names[1]]

"""From the call that carries what decides an alarm to the alert in Alertmanager, of many alarms, through real servers."""

import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from bench.producer import Producer
from tests.alertmanager import alerting
from tests.batches import ORIGIN, Traffic
from tests.collector import Collector
from tests.patience import eventually
from tests.receiver import receiving

TICK_SECONDS = 1.0
BETS_SECONDS = 1.0
"""How often the sampler's test, which knows no ticks, looks at what has come."""

SAMPLERS, SHIFTED = 80, 20
"""Models whose sampler goes wrong, which one call decides; models whose traffic changes, which takes several ticks."""

CLUSTERS = 320
CONFIG = f"""
[detect]
tick_seconds = {TICK_SECONDS}
provisional_clusters = {CLUSTERS}
subject_limit = {SAMPLERS + SHIFTED}

[notify]
alertmanagers = ["{{url}}"]
"""


class Model:
    """A served model: its traffic, and how long ago it last sent some of it."""

    def __init__(self, name, number, stack, address):
        self.name = name
        self.traffic = Traffic(number)
        self.producer = stack.enter_context(Producer(address, replace(ORIGIN, model=name)))
        self.sent = 0.0

    def send(self, count, **fault):
        """Returns once the collector has said that it has it."""
        self.producer.send(*self.traffic.batch(count, time.time(), **fault).tables)
        self.sent = time.time()


@pytest.fixture(scope="module")
def peer(tmp_path_factory, alertmanager_program, free_port):
    with (
        receiving() as receiver,
        alerting(tmp_path_factory.mktemp("peer"), alertmanager_program, free_port(), receiver.url) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def collector(tmp_path_factory, free_port, peer):
    with Collector(tmp_path_factory.mktemp("collector"), free_port, CONFIG.format(url=peer.url)) as found:
        yield found


@pytest.fixture(scope="module")
def stack():
    with ExitStack() as found:
        yield found


@pytest.fixture(scope="module")
def models(collector, stack):
    """Those whose traffic will change; each is compared with a reference."""
    found = [Model(f"shifted-{i}", i, stack, collector.grpc) for i in range(SHIFTED)]
    for model in found:
        for _ in range(4):
            model.send(CLUSTERS // 4)
    collector.wait_processed()

    def learnt():
        references = collector.get("/api/v1/references").json()["references"]
        return len(references) == SHIFTED and all(one["state"] != "none" for one in references)

    eventually(learnt)
    return found


def started(alert):
    """When the tick closed that raised it."""
    return datetime.fromisoformat(alert["startsAt"]).timestamp()


def raised(peer, model):
    """The alert of a model and when it was first seen in Alertmanager, None if it is not there."""
    found = peer.alerts(model=model.name)
    return (found[0], time.time()) if found else None


def said(what, seconds):
    median, late = np.quantile(seconds, (0.5, 0.99))
    print(f"{what}: median {median:.3f} s, p99 {late:.3f} s, {len(seconds)} alarms")
    return late


def test_what_one_call_decides_is_an_alert_within_a_second_of_the_next_look(collector, peer, stack):
    after_look, after_call = [], []
    for i in range(SAMPLERS):
        model = Model(f"sampler-{i}", 1000 + i, stack, collector.grpc)
        model.send(8)
        # Of any phase of the second between two looks.
        time.sleep(float(np.random.default_rng(i).uniform(0, 0.2)))
        assert not peer.alerts(model=model.name)
        model.send(64, temperature=0.02)
        alert, seen = eventually(lambda model=model: raised(peer, model), poll_seconds=0.01)
        assert alert["annotations"]["triage"] == "sampler"
        after_look.append(seen - started(alert))
        after_call.append(seen - model.sent)
    assert said("look to alert", after_look) <= 1.0
    assert said("call to alert", after_call) <= BETS_SECONDS + 1.0


def test_what_several_ticks_decide_is_an_alert_within_a_second_of_the_last(models, peer):
    assert not any(peer.alerts(model=model.name) for model in models)
    after_tick, after_call = [], []
    waiting = list(models)
    until = time.monotonic() + 120
    while waiting and time.monotonic() < until:
        for model in waiting:
            model.send(12, outside=40.0)
        following = time.monotonic() + TICK_SECONDS
        while time.monotonic() < following:
            for model in list(waiting):
                found = raised(peer, model)
                if found is not None:
                    alert, seen = found
                    waiting.remove(model)
                    after_tick.append(seen - started(alert))
                    after_call.append(seen - model.sent)
            time.sleep(0.005)
    assert not waiting
    assert said("tick to alert", after_tick) <= 1.0
    assert said("call to alert", after_call) <= TICK_SECONDS + 1.0

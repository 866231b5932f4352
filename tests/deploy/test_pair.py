"""Two real Alertmanagers that stand in for one another: both are told, people are called once, also by one alone."""

import time
from contextlib import ExitStack

import httpx
import pytest

from introspan_collector.detect.incident.announcement import notice
from introspan_collector.detect.incident.finding import Copy
from introspan_collector.detect.incident.incidents import Incidents
from introspan_collector.notice import Links
from introspan_collector.notify.notifier import Notifier
from introspan_collector.notify.settings import NotifySettings
from tests.deploy.alarmed import ALONE, alertmanager
from tests.incidents import finding, stream
from tests.patience import eventually
from tests.receiver import receiving

TURN_SECONDS = 2
"""So long the second waits for the first to have told; 15 s where nothing is said."""
GOSSIP = (
    f"--cluster.peer-timeout={TURN_SECONDS}s",
    "--cluster.gossip-interval=100ms",
    "--cluster.pushpull-interval=1s",
)


class Pair:
    """Two of them, and a notifier of a collector that names both; each calls the receiver at a path of its own."""

    def __init__(self, stack, folder, program, free_port, *, is_cluster):
        self.calls = stack.enter_context(receiving())
        gossip = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        self.peers, self.addresses = [], []
        for name, own, other in (("a", *gossip), ("b", *reversed(gossip))):
            cluster = (f"--cluster.listen-address={own}", f"--cluster.peer={other}", *GOSSIP)
            peer = stack.enter_context(ExitStack())
            where = (folder / name, free_port(), f"{self.calls.url}/{name}")
            one = alertmanager(program, *where, inhibiting=True, cluster=cluster if is_cluster else ALONE)
            self.addresses.append(peer.enter_context(one))
            self.peers.append(peer)
        if is_cluster:
            eventually(lambda: all(map(joined, self.addresses)))
        settings = NotifySettings(tuple(f"http://{address}" for address in self.addresses), retry_seconds=0.1)
        self.notifier = Notifier(folder / "notify", settings)
        self.notifier.start()
        stack.callback(self.notifier.stop, 5.0)

    def incident(self, model):
        opened = Incidents().take(
            finding(stream("classes", model=model, side="outside"), copy=Copy.PAGE, at=time.time()),
            time.time(),
        )
        self.notifier.put(notice(opened[0].incident, Links()))

    def told(self, model):
        """Which of the two called whom of a model."""
        return [
            call.path.strip("/").split("/")
            for call in list(self.calls.calls)
            for alert in call.document["alerts"]
            if alert["labels"]["model"] == model
        ]


def joined(address):
    cluster = httpx.get(f"http://{address}/api/v2/status", timeout=5).json()["cluster"]
    return cluster["status"] == "ready" and len(cluster["peers"]) == 2


def known(address):
    """Models of the alerts that one of them knows."""
    return {one["labels"]["model"] for one in httpx.get(f"http://{address}/api/v2/alerts", timeout=5).json()}


@pytest.fixture(scope="module")
def pair(tmp_path_factory, alertmanager_program, free_port):
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("pair")
        yield Pair(stack, folder, alertmanager_program, free_port, is_cluster=True)


def test_both_know_of_an_incident_and_one_of_them_calls_and_when_it_is_gone_the_other_does(pair):
    pair.incident("first")
    eventually(lambda: pair.told("first"))
    eventually(lambda: all("first" in known(address) for address in pair.addresses))
    time.sleep(TURN_SECONDS + 1.5)  # the turn of the second has come and gone
    ((caller, receiver),) = pair.told("first")
    assert receiver == "page"
    gone, left = (0, 1) if caller == "a" else (1, 0)
    pair.peers[gone].close()
    pair.incident("second")
    eventually(lambda: pair.told("second"))
    assert pair.told("second") == [["ab"[left], "page"]]


def test_what_two_prometheus_say_of_the_same_is_one_alert(pair):
    labels = {"alertname": "IntrospanNotFinite", "severity": "critical", "model": "twice"}
    address = next(one for one in pair.addresses if is_up(one))
    for number in range(2):
        said = [{"labels": labels, "generatorURL": f"http://prometheus-{number}:9090/graph"}]
        httpx.post(f"http://{address}/api/v2/alerts", json=said, timeout=5).raise_for_status()
    eventually(lambda: pair.told("twice"))
    time.sleep(1.5)
    assert len(pair.told("twice")) == 1


def is_up(address):
    try:
        return httpx.get(f"http://{address}/-/ready", timeout=5).is_success
    except httpx.TransportError:
        return False


def test_two_that_do_not_know_of_each_other_would_both_call(tmp_path, alertmanager_program, free_port):
    with ExitStack() as stack:
        apart = Pair(stack, tmp_path, alertmanager_program, free_port, is_cluster=False)
        apart.incident("apart")
        eventually(lambda: len(apart.told("apart")) == 2)
        assert sorted(apart.told("apart")) == [["a", "page"], ["b", "page"]]

"""A collector and Prometheus both tell a real Alertmanager of one incident: whoever is called is called once."""

import json
import time
from contextlib import ExitStack

import httpx
import pytest

from bench.fleet import origin
from bench.producer import Producer
from tests.batches import Traffic
from tests.collector import Collector
from tests.deploy.alarmed import alertmanager, prometheus
from tests.patience import eventually
from tests.receiver import receiving

OURS, THEIRS = "IntrospanOutputNotFinite", "IntrospanIncident"
HURRIED = "[detect]\ntick_seconds = 1\nquiet_seconds = 3\nquiet_requests = 30\n"


class Scene:
    """Two Alertmanagers, one with the routes as delivered and one without inhibition; two collectors of Prometheus.

    One collector posts its incidents to both, the other to nobody. told: what each receiver was called with.
    """

    def __init__(self, stack, folder, programs, free_port):
        self.calls = stack.enter_context(receiving())
        self.peers = [
            stack.enter_context(
                alertmanager(
                    programs["alertmanager"],
                    folder / name,
                    free_port(),
                    f"{self.calls.url}/{name}",
                    inhibiting=name == "delivered",
                )
            )
            for name in ("delivered", "bare")
        ]
        addresses = json.dumps([f"http://{peer}" for peer in self.peers])
        posts = f"[notify]\nresend_seconds = 1\nalertmanagers = {addresses}\n"
        self.posting, self.silent = (
            stack.enter_context(Collector(self._made(folder / name), free_port, HURRIED + more))
            for name, more in (("posting", posts), ("silent", ""))
        )
        collectors = [self.posting.http, self.silent.http]
        stack.enter_context(
            prometheus(programs["prometheus"], folder / "metrics", free_port(), collectors, self.peers)
        )
        self.feeds = [
            (stack.enter_context(Producer(one.grpc, origin(model, "r0"))), Traffic())
            for one, model in ((self.posting, "posted"), (self.silent, "unposted"))
        ]

    @staticmethod
    def _made(folder):
        folder.mkdir()
        return folder

    def feed(self, nonfinite=0):
        for producer, traffic in self.feeds:
            producer.send(*traffic.batch(40, time.time(), nonfinite=nonfinite).tables)

    def alerts(self, name):
        """Of the Alertmanager as delivered: (model or "", whether it is told), each alert of this name."""
        answer = httpx.get(
            f"http://{self.peers[0]}/api/v2/alerts", params={"filter": f'alertname="{name}"'}, timeout=5
        )
        return {(one["labels"].get("model", ""), one["status"]["state"]) for one in answer.json()}

    def told(self, peer, model):
        """What receivers of one Alertmanager were called with of a model, in order."""
        return [
            (call.path.removeprefix(f"/{peer}/"), alert["status"], alert["labels"]["alertname"])
            for call in list(self.calls.calls)
            if call.path.startswith(f"/{peer}/")
            for alert in call.document["alerts"]
            if alert["labels"].get("model") == model
        ]

    def ended(self, peer, model, name):
        return ("page", "resolved", name) in self.told(peer, model)


@pytest.fixture(scope="module")
def scene(tmp_path_factory, prometheus_program, alertmanager_program, free_port):
    """After an incident that began, lasted and ended, and was told wherever it was to be told."""
    programs = {"prometheus": prometheus_program, "alertmanager": alertmanager_program}
    with ExitStack() as stack:
        scene = Scene(stack, tmp_path_factory.mktemp("told"), programs, free_port)
        eventually(lambda: scene.alerts("IntrospanCollectorNotifies"))
        scene.feed(nonfinite=3)
        eventually(lambda: scene.alerts(THEIRS) >= {("posted", "suppressed"), ("unposted", "active")})
        eventually(lambda: ("page", "firing", THEIRS) in scene.told("bare", "posted"))

        def over():
            scene.feed()
            return scene.ended("bare", "posted", THEIRS) and scene.ended("delivered", "unposted", THEIRS)

        eventually(over, poll_seconds=0.5)
        eventually(lambda: scene.ended("delivered", "posted", OURS))
        time.sleep(3.0)  # three of Alertmanager's intervals
        yield scene


def test_an_incident_that_the_collector_posts_is_paged_once_and_its_end_told_once(scene):
    assert scene.told("delivered", "posted") == [("page", "firing", OURS), ("page", "resolved", OURS)]


def test_without_the_delivered_inhibition_it_would_be_paged_twice(scene):
    pages = {name for receiver, status, name in scene.told("bare", "posted") if receiver == "page"}
    assert pages == {OURS, THEIRS}


def test_an_incident_that_the_collector_posts_to_nobody_is_paged_by_prometheus(scene):
    assert scene.told("delivered", "unposted") == [("page", "firing", THEIRS), ("page", "resolved", THEIRS)]
    links = {
        alert["annotations"]["runbook_url"]
        for call in scene.calls.calls
        for alert in call.document["alerts"]
        if alert["labels"]["alertname"] == THEIRS
    }
    assert links == {"docs/runbook.md#introspanoutputnotfinite"}


def test_the_watchdog_barks_while_all_of_it_works(scene):
    assert {call.path for call in scene.calls.calls if call.path.endswith("/watchdog")} == {
        "/delivered/watchdog",
        "/bare/watchdog",
    }

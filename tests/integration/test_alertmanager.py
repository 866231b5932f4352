"""Incidents become alerts in a real Alertmanager, through outages and kills on either side."""

import json
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
from pydantic import TypeAdapter

from introspan_collector.detect.incident.announcement import notice
from introspan_collector.detect.incident.finding import Copy, Subject
from introspan_collector.detect.incident.incidents import Incidents
from introspan_collector.detect.incident.reconsider import CanaryReport
from introspan_collector.detect.incident.triage import Canary
from introspan_collector.notice import Links, Notice
from introspan_collector.notify.notifier import Notifier
from introspan_collector.notify.settings import NotifySettings
from tests.alertmanager import alerting
from tests.incidents import finding, stream
from tests.patience import eventually
from tests.receiver import receiving

RUNBOOK = "https://docs.example/runbook.md"
RESEND_SECONDS = 0.5


class Case:
    """One incident of a model of its own, and the notices of what happens to it."""

    def __init__(self, model):
        self.model = model
        self.book = Incidents()

    def opened(self, copy=Copy.TICKET):
        about = stream("classes", model=self.model, side="outside")
        return self._notice(self.book.take(finding(about, copy=copy, at=time.time()), time.time()))

    def canary(self, state):
        now = time.time()
        return self._notice(self.book.hear(CanaryReport(self.model, "r0", state, now, "layer 5"), now))

    def over(self):
        return self._notice(self.book.recovered(Subject(self.model, ""), time.time()))

    def _notice(self, events):
        (event,) = events
        return notice(event.incident, Links(RUNBOOK))


@pytest.fixture(scope="module")
def receiver():
    with receiving() as found:
        yield found


@pytest.fixture(scope="module")
def peer(tmp_path_factory, alertmanager_program, free_port, receiver):
    folder = tmp_path_factory.mktemp("alertmanager")
    with alerting(folder, alertmanager_program, free_port(), receiver.url) as found:
        yield found


@contextmanager
def notifying(directory, *urls, **settings):
    patient = {"resend_seconds": RESEND_SECONDS, "retry_seconds": 0.1, "retry_limit_seconds": 0.5}
    notifier = Notifier(directory, NotifySettings(alertmanagers=urls, **patient | settings))
    notifier.start()
    try:
        yield notifier
    finally:
        notifier.stop(5.0)


def told(receiver, model):
    """What Alertmanager told of a model: (status, severity, annotations), in order."""
    return [
        (alert["status"], alert["labels"]["severity"], alert["annotations"])
        for document in list(receiver.documents())
        for alert in document["alerts"]
        if alert["labels"]["model"] == model
    ]


def statuses(receiver, model):
    return [(status, severity) for status, severity, _ in told(receiver, model)]


def test_an_incident_fires_with_its_identity_in_labels_and_the_rest_in_annotations(tmp_path, peer):
    case = Case("fires")
    with notifying(tmp_path, peer.url) as notifier:
        notifier.put(case.opened())
        alert = eventually(lambda: peer.alert(model="fires"))
    assert alert["labels"] == {
        "alertname": "IntrospanTrafficShifted",
        "model": "fires",
        "severity": "warning",
    }
    said = alert["annotations"]
    assert said["triage"] == "pending"
    assert said["runbook_url"] == f"{RUNBOOK}#introspantrafficshifted"
    assert "at most one false alarm in 1 day" in said["guarantee"]
    assert alert["status"]["state"] == "active"


def test_resends_and_a_changed_triage_are_no_second_alert_and_the_end_is_told_once(tmp_path, peer, receiver):
    case = Case("resent")
    with notifying(tmp_path, peer.url) as notifier:
        notifier.put(case.opened())
        first = eventually(lambda: peer.alert(model="resent"))
        eventually(lambda: told(receiver, "resent"))
        later = eventually(
            lambda: (found := peer.alert(model="resent"))["endsAt"] > first["endsAt"] and found
        )
        assert (later["startsAt"], later["fingerprint"]) == (first["startsAt"], first["fingerprint"])
        notifier.put(case.canary(Canary.STILL))
        eventually(lambda: peer.alert(model="resent")["annotations"]["triage"] == "traffic")
        time.sleep(3.0)  # three of Alertmanager's group intervals, six resends
        assert peer.alert(model="resent")["fingerprint"] == first["fingerprint"]
        assert statuses(receiver, "resent") == [("firing", "warning")]
        notifier.put(case.over())
        eventually(lambda: not peer.alerts(model="resent"))
        eventually(lambda: len(told(receiver, "resent")) == 2)
        assert statuses(receiver, "resent")[1] == ("resolved", "warning")
        assert told(receiver, "resent")[1][2]["triage"] == "traffic"
        time.sleep(2 * RESEND_SECONDS)
        assert not peer.alerts(model="resent")


def test_a_ticket_that_becomes_a_page_is_one_alert_of_the_new_severity(tmp_path, peer):
    case = Case("escalates")
    with notifying(tmp_path, peer.url) as notifier:
        notifier.put(case.opened())
        eventually(lambda: peer.alert(model="escalates"))
        notifier.put(case.opened(Copy.PAGE))
        eventually(lambda: peer.alert(model="escalates")["labels"]["severity"] == "critical")
        notifier.put(case.over())
        eventually(lambda: not peer.alerts(model="escalates"))


def test_a_ticket_that_becomes_a_page_while_it_is_told_leaves_no_ticket_behind(tmp_path, peer):
    with notifying(tmp_path, peer.url, resend_seconds=60.0) as notifier:
        for i in range(20):
            case = Case(f"hurried-{i}")
            notifier.put(case.opened())
            time.sleep(0.002 * i)  # before, while and after the ticket is on its way
            notifier.put(case.opened(Copy.PAGE))
        for i in range(20):
            eventually(lambda i=i: peer.alert(model=f"hurried-{i}")["labels"]["severity"] == "critical", 10.0)


def test_an_outage_of_alertmanager_delays_alerts_and_loses_none(
    tmp_path, alertmanager_program, free_port, receiver
):
    port = free_port()
    lasting, past = Case("lasts"), Case("is over")
    with notifying(tmp_path / "ours", f"http://127.0.0.1:{port}", late_seconds=4.0) as notifier:
        notifier.put(lasting.opened())
        notifier.put(past.opened())
        notifier.put(past.over())
        eventually(lambda: sum(notifier.stats().failed.values()) >= 3)
        assert sum(notifier.stats().waiting.values()) == 2
        with alerting(tmp_path / "theirs", alertmanager_program, port, receiver.url) as late:
            eventually(lambda: late.alert(model="lasts"))
            assert "over_since" in eventually(lambda: late.alert(model="is over"))["annotations"]
            # People hear of what began and ended meanwhile: Alertmanager is silent on what comes to it resolved.
            eventually(
                lambda: statuses(receiver, "is over") == [("firing", "warning"), ("resolved", "warning")]
            )
            assert statuses(receiver, "lasts") == [("firing", "warning")]
        assert notifier.stats().dropped == {}


def settings_of(*urls):
    return json.dumps({"alertmanagers": urls, "resend_seconds": RESEND_SECONDS, "retry_limit_seconds": 1.0})


class Ours:
    """A notifier in a process of its own."""

    def __init__(self, directory, *urls):
        command = [sys.executable, "-m", "tests.notifying", directory, settings_of(*urls)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "started\n"

    def put(self, one):
        self.process.stdin.write(TypeAdapter(Notice).dump_json(one).decode() + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "put\n"

    def kill(self):
        self.process.kill()
        self.process.communicate()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.returncode is None:
            self.process.communicate(timeout=20)


def test_what_was_put_before_a_kill_is_told_after_it(tmp_path, alertmanager_program, free_port, receiver):
    port = free_port()
    url, case = f"http://127.0.0.1:{port}", Case("killed early")
    with Ours(tmp_path / "ours", url) as ours:
        ours.put(case.opened())
        ours.kill()
    with (
        alerting(tmp_path / "theirs", alertmanager_program, port, receiver.url) as late,
        Ours(tmp_path / "ours", url),
    ):
        eventually(lambda: late.alert(model="killed early"))


def test_a_kill_while_an_alert_lasts_is_no_second_alert_and_its_end_is_told(tmp_path, peer, receiver):
    case = Case("killed late")
    opened = case.opened()
    with Ours(tmp_path, peer.url) as ours:
        ours.put(opened)
        first = eventually(lambda: peer.alert(model="killed late"))
        eventually(lambda: told(receiver, "killed late"))
        ours.kill()
    with Ours(tmp_path, peer.url) as ours:
        eventually(lambda: peer.alert(model="killed late")["endsAt"] > first["endsAt"])
        ours.put(opened)  # the log is read again from the last checkpoint
        ours.put(case.over())
        eventually(lambda: not peer.alerts(model="killed late"))
        eventually(lambda: len(told(receiver, "killed late")) == 2)
        ours.put(opened)
        time.sleep(2.5)
        assert statuses(receiver, "killed late") == [("firing", "warning"), ("resolved", "warning")]


def test_alerts_of_a_collector_that_is_gone_end_by_themselves(tmp_path, peer):
    with Ours(tmp_path, peer.url) as ours:
        ours.put(Case("gone").opened())
        eventually(lambda: peer.alert(model="gone"))
        ours.kill()
    eventually(lambda: not peer.alerts(model="gone"), within_seconds=10 * RESEND_SECONDS)


def test_each_peer_is_told_and_one_that_never_answers_delays_no_other(tmp_path, peer):
    with receiving() as stuck:
        stuck.answers = [(200, {}, 60.0)] * 20
        with notifying(tmp_path, stuck.url, peer.url, timeout_seconds=2.0) as notifier:
            began = time.monotonic()
            notifier.put(Case("two peers").opened())
            eventually(lambda: peer.alert(model="two peers"), poll_seconds=0.01)
            assert time.monotonic() - began < 1.0
            eventually(lambda: notifier.stats().failed.get((stuck.url, "timeout")))
            assert stuck.documents()[0][0]["labels"]["model"] == "two peers"


def test_an_alert_is_in_alertmanager_within_a_second_at_the_99th_percentile(tmp_path, peer):
    seconds = []
    with notifying(tmp_path, peer.url, resend_seconds=60.0) as notifier:
        notifier.put(Case("first call").opened())
        eventually(lambda: peer.alert(model="first call"))
        for i in range(100):
            one = Case(f"timed-{i}").opened()
            began = time.monotonic()
            notifier.put(one)
            eventually(lambda i=i: peer.alerts(model=f"timed-{i}"), poll_seconds=0.002)
            seconds.append(time.monotonic() - began)
    print(f"notice to alert: median {np.median(seconds):.3f} s, p99 {np.quantile(seconds, 0.99):.3f} s")
    assert np.quantile(seconds, 0.99) <= 1.0

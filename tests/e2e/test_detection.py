"""What is said of a real vLLM server by a real Alertmanager: of healthy traffic nothing, of each fault what it is.

What is learnt of healthy traffic is learnt once, and compared with in every test.
"""

import time

import pytest
from texts import code, letters
from watched import CLUSTERS, watched

from demo.faults import damaged

pytestmark = [
    pytest.mark.xdist_group("detection"),  # one process: they share what takes long to start
    pytest.mark.timeout(1800),  # the last starts the server twice
]

LAYER = 11
AFTER_LEARNING = 120
ANSWER_SECONDS = 30.0
"""So long may an alert say that the canary is being asked; what follows says what it answered, or that it did not."""


@pytest.fixture(scope="module")
def running(tmp_path_factory, model_directory, free_port, alertmanager_program):
    folder = tmp_path_factory.mktemp("watched")
    with watched(folder, model_directory, free_port, alertmanager_program) as found:
        yield found


@pytest.fixture
def learnt(healthy):
    """The same, once nothing is the matter with it and there is something to compare with."""
    running, _ = healthy
    assert running.reference().get("state") == "frozen"
    assert not running.alerts()
    return running


class Story:
    """What people are told while a fault lasts and after it; seconds since its begin."""

    def __init__(self, running, name):
        self.running, self.name = running, name
        self.known = {one["id"] for one in running.alarms()}
        self.told = len(running.receiver.documents())
        self.began = time.monotonic()

    def alert(self):
        """The one alert that there is, None while there is none."""
        found = self.running.alerts()
        assert len(found) <= 1, found
        return found[0] if found else None

    def says(self, triage):
        """The alert once it says so."""
        found = self.alert()
        return found if found and found["annotations"]["triage"] == triage else None

    def seconds(self):
        return time.monotonic() - self.began

    def report(self, what):
        print(f"{self.name}: {what} after {self.seconds():.0f} s, {self.running.answered} requests in all")

    def ends(self, texts):
        """Sends healthy traffic until everybody has heard that it is over; it was one incident from begin to end."""
        # What has to pass is time: more requests would only keep the machine from what else it is to do.
        self.running.send_until(lambda: not self.running.alerts() and not self._lasting(), texts, at_once=1)
        self.report("over")
        (incident,) = [one for one in self.running.alarms() if one["id"] not in self.known]
        assert incident["state"] == "resolved"
        assert self.running.send_until(self._is_told_to_be_over, texts, at_once=1)
        return incident

    def _lasting(self):
        return [one for one in self.running.alarms() if one["state"] != "resolved"]

    def _is_told_to_be_over(self):
        documents = self.running.receiver.documents()[self.told :]
        return [one["status"] for one in documents][-1:] == ["resolved"]


def _rounds(running):
    return next(iter(running.collector.get("/api/v1/canaries").json()["endpoints"]))["answered"]


@pytest.fixture(scope="module")
def healthy(running):
    """The server, collector and Alertmanager once everything was learnt, silently, and what people were told of it."""
    texts = letters(1)

    def silent(claim):
        assert not running.alerts()
        assert not running.alarms()
        return claim

    story = Story(running, "healthy")
    running.send_until(
        lambda: silent(
            running.reference().get("state") == "frozen" and running.canary().get("baseline") is not None
        ),
        texts,
        within_seconds=400.0,
    )
    story.report("learnt")
    requests, rounds = running.answered, _rounds(running)
    running.send_until(lambda: silent(running.answered >= requests + AFTER_LEARNING), texts)
    running.send_until(lambda: silent(_rounds(running) >= rounds + 2), texts, at_once=1)
    story.report("silent")
    return running, running.receiver.documents()


def test_healthy_traffic_stays_silent_while_everything_is_learnt_and_afterwards(healthy):
    running, documents = healthy
    assert running.reference()["reference"]["clusters"] >= CLUSTERS
    assert not documents


def test_a_wrong_temperature_is_the_samplers(learnt):
    story = Story(learnt, "sampler")
    texts = letters(2)
    with learnt.hot_sampler():
        alert = learnt.send_until(story.alert, texts)
        story.report("alert")
        assert alert["labels"]["model"] == "smollm2"
        assert alert["annotations"]["triage"] == "sampler", alert
        rounds = _rounds(learnt)
        # A canary that was asked since changes nothing about it.
        learnt.send_until(lambda: _rounds(learnt) >= rounds + 2, texts)
        assert story.says("sampler"), story.alert()
    incident = story.ends(letters(3))
    assert incident["alertname"] == "IntrospanSamplerDeviates"


def test_other_requests_are_traffic_once_the_canary_has_answered(learnt):
    story = Story(learnt, "traffic")
    texts = code(4)
    alert = learnt.send_until(story.alert, texts)
    story.report("alert")
    since = time.monotonic()
    assert alert["annotations"]["triage"] == "pending", alert
    assert alert["labels"]["alertname"] == "IntrospanTrafficShifted"
    learnt.send_until(lambda: not story.says("pending"), texts)
    assert time.monotonic() - since <= ANSWER_SECONDS + 2.0
    learnt.send_until(lambda: story.says("traffic"), texts)
    story.report("canary has answered")
    story.ends(letters(5))


def test_a_damaged_layer_is_named_and_it_is_the_model(learnt, model_directory, tmp_path):
    learnt.stop()
    learnt.serve(damaged(model_directory, tmp_path, LAYER))
    story = Story(learnt, "layer")
    alert = learnt.send_until(story.alert, letters(6))
    story.report("alert")
    assert alert["labels"] == {
        "alertname": "IntrospanCanaryDeviates",
        "model": "smollm2",
        "severity": "critical",
    }
    said = alert["annotations"]
    assert said["layer"] == f"layer {LAYER}"
    assert said["triage"] == "model or engine"
    assert said["replicas"] == "replica-0"
    learnt.serve(model_directory)
    story.report("restarted")
    incident = story.ends(letters(7))
    assert incident["layer"] == f"layer {LAYER}"

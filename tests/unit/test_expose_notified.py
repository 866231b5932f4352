"""What Prometheus is told of incidents, and of who else tells people of them."""

from dataclasses import replace

import pytest

from introspan_collector.detect.detector import Detector
from introspan_collector.detect.incident.maintenance import Window
from introspan_collector.detect.report import Report
from introspan_collector.expose.detection_families import detection_families
from introspan_collector.notify.notifier import Notifier
from introspan_collector.notify.settings import NotifySettings
from tests.batches import Traffic
from tests.exposed import IDLE

NOW = 1_800_000_000.0
PEERS = ("http://a:9093", "http://b:9093")


class Watched:
    """A detector, and its metrics by name, each a list of (labels, value)."""

    def __init__(self):
        self.now = NOW
        self.traffic = Traffic()
        self.detector = Detector(clock=lambda: self.now)

    def metrics(self, deliveries=IDLE):
        families = detection_families(Report(self.detector, lambda: self.now), [], deliveries)
        return {one.name: [(sample.labels, sample.value) for sample in one.samples] for one in families}

    def breaks(self):
        self.detector.consume(self.traffic.batch(4, self.now, nonfinite=3))
        self.detector.advance()


def test_an_incident_is_notified_by_the_name_of_its_alert():
    watched = Watched()
    watched.breaks()
    who = {"model": "m", "adapter": "", "severity": "critical", "alarm": "IntrospanOutputNotFinite"}
    assert watched.metrics()["introspan_incident_notified"] == [(who, 1.0)]


def test_an_incident_in_an_announced_deploy_is_active_and_not_notified_until_it_outlasts_it():
    watched = Watched()
    watched.detector.announce(Window("m", NOW, NOW + 60, "new weights"))
    watched.breaks()
    metrics = watched.metrics()
    active = {labels["severity"]: value for labels, value in metrics["introspan_alarm_active"]}
    assert active["critical"] == 1.0
    assert metrics["introspan_incident_notified"] == []
    watched.now += 70
    watched.detector.advance()
    assert len(watched.metrics()["introspan_incident_notified"]) == 1


@pytest.mark.parametrize(
    ("waiting", "informed"),
    [((0, 0), [({}, 1.0)]), ((0, 2), [({}, 1.0)]), ((1, 2), [({}, 0.0)])],
)
def test_one_alertmanager_that_knows_all_is_enough(waiting, informed):
    hook = {"http://hook": 5}
    deliveries = replace(IDLE, waiting=dict(zip(PEERS, waiting, strict=True)) | hook, alertmanagers=PEERS)
    assert Watched().metrics(deliveries)["introspan_notify_alertmanager_informed"] == informed


def test_a_webhook_informs_no_alertmanager(tmp_path):
    notifier = Notifier(tmp_path, NotifySettings(webhooks=("http://hook",)))
    stats = notifier.stats()
    notifier.stop(1.0)
    assert set(stats.waiting) == {"http://hook"}
    assert Watched().metrics(stats)["introspan_notify_alertmanager_informed"] == []

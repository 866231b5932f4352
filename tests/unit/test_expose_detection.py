"""The API of alarms, deploys, references and canaries: what it answers, whom it obeys, and what it refuses."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

from introspan_collector.aggregate.aggregator import Aggregator
from introspan_collector.archive.archive import Archive
from introspan_collector.detect.detector import Detector
from introspan_collector.detect.report import Report
from introspan_collector.detect.settings import DetectSettings
from introspan_collector.expose.app import build
from introspan_collector.expose.detection_families import detection_families
from introspan_collector.notify.notifier import NotifyStats
from tests.batches import Traffic
from tests.exposed import IDLE, AsSeen, watched_sources

SETTINGS = DetectSettings(provisional_clusters=60, frozen_clusters=200, frozen_hours=0.0)
ENDPOINT = {"url": "http://vllm:8000", "model": "m", "answered": 1, "failed": 2, "error": "timeout"}
JSON = {"content-type": "application/json"}


class Service:
    """A detector under traffic, and the application that shows it."""

    def __init__(self, folder, token=None, detection=None):
        self.now = 1_800_000_000.0
        self.traffic = Traffic()
        self.detector = Detector(SETTINGS, clock=lambda: self.now)
        shown = detection or Report(self.detector, lambda: self.now)
        sources = watched_sources(
            Aggregator(),
            Archive(folder),
            dict,
            lambda: True,
            detection=shown,
            endpoints=[ENDPOINT],
            token=token,
        )
        self.client = TestClient(build(sources), base_url="http://collector/api/v1/")

    def run(self, ticks, **fault):
        for _ in range(ticks):
            self.now += 10.0
            self.detector.consume(self.traffic.batch(20, self.now, **fault))
            self.detector.advance()

    def get(self, path, **parameters):
        return self.client.get(path, params=parameters)

    def post(self, path, **body):
        return self.client.post(path, json=body)


@pytest.fixture
def service(tmp_path):
    """Its reference is frozen, and its sampler wrong."""
    service = Service(tmp_path)
    service.run(20)
    service.run(5, temperature=2.0)
    return service


def refused(answer, status, key):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["key"] == key
    assert error["remedy"]
    return error


def test_alarms_are_listed_by_model_adapter_and_state_and_found_by_id(service):
    (alarm,) = service.get("alarms").json()["alarms"]
    assert (alarm["model"], alarm["adapter"], alarm["alertname"]) == ("m", "", "IntrospanSamplerDeviates")
    assert alarm["evidence"][0]["stream"]["signal"] == "sampler.pit"
    assert service.get(f"alarms/{alarm['id']}").json() == alarm
    for key, other in (("model", "n"), ("adapter", "poet"), ("state", "resolved")):
        assert service.get("alarms", **{key: alarm[key]}).json()["alarms"] == [alarm]
        assert service.get("alarms", **{key: other}).json()["alarms"] == []
    refused(service.get("alarms", state="loud"), 400, "state")
    refused(service.get("alarms", colour="red"), 400, "colour")
    assert refused(service.get("alarms/none"), 404, "id")["value"] == "none"


def test_a_state_that_no_alarm_can_be_in_is_refused_where_there_are_no_alarms_too(tmp_path):
    quiet = Service(tmp_path)
    assert quiet.get("alarms", state="open").json()["alarms"] == []
    refused(quiet.get("alarms", state="loud"), 400, "state")


def test_an_alarm_is_acknowledged_by_name_until_it_is_over(service):
    (alarm,) = service.get("alarms").json()["alarms"]
    path = f"alarms/{alarm['id']}/acknowledge"
    answer = service.post(path, by="ann", comment="looking").json()
    assert answer["alarm"]["state"] == "acknowledged"
    assert answer["alarm"]["acknowledgement"]["by"] == "ann"
    assert answer["accepted"] == ""
    assert "more clusters" in service.post(path, by="ann", accept_as_class=True).json()["accepted"]
    service.run(1)
    refused(service.post("alarms/none/acknowledge", by="ann"), 404, "id")
    service.run(4)
    assert service.get(f"alarms/{alarm['id']}").json()["state"] == "resolved"
    refused(service.post(path, by="ann"), 409, f"/api/v1/{path}")


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b"{}", "by"),
        (b'{"by": ""}', "by"),
        (b'{"by": 5}', "by"),
        (b'{"by": "ann", "accept_as_class": "yes"}', "accept_as_class"),
        (b'{"by": "ann", "coment": ""}', "coment"),
        (json.dumps({"by": "ann", "comment": "x" * 2001}).encode(), "comment"),
        (b'{"by": "\xff"}', "body"),
        (b"[" * 10_000, "body"),
    ],
)
def test_a_body_that_cannot_be_used_is_answered_with_key_value_and_remedy(service, body, key):
    (alarm,) = service.get("alarms").json()["alarms"]
    path = f"alarms/{alarm['id']}/acknowledge"
    refused(service.client.post(path, content=body, headers=JSON), 400, key)
    assert service.get(f"alarms/{alarm['id']}").json()["acknowledgement"] is None


def test_a_form_of_somebodys_browser_is_no_decision(service):
    (alarm,) = service.get("alarms").json()["alarms"]
    path = f"alarms/{alarm['id']}/acknowledge"
    answer = service.client.post(path, content=b'{"by": "x"}', headers={"content-type": "text/plain"})
    refused(answer, 415, "content-type")
    refused(service.client.post("references/import", data={"a": "b"}), 415, "content-type")


@pytest.mark.parametrize(
    ("path", "kind", "most_bytes"),
    [("references/promote", "application/json", 65_536), ("references/import", "application/zip", 8 * 2**20)],
)
def test_a_body_is_read_no_further_than_it_may_be_long(service, path, kind, most_bytes):
    read = []

    def endless():
        while len(read) < 1000:
            read.append(1)
            yield b"x" * 65_536

    refused(service.client.post(path, content=endless(), headers={"content-type": kind}), 413, "body")
    just = service.client.post(path, content=b"x" * most_bytes, headers={"content-type": kind})
    assert just.status_code == 400


@pytest.mark.parametrize("given", [None, "Bearer wrong", "Bearer", "secret", "Bearer secret2", "bearer \xe9"])
def test_with_a_token_nothing_is_changed_without_it_and_everything_can_be_read(tmp_path, given):
    service = Service(tmp_path, token="secret")
    headers = {} if given is None else {"authorization": given.encode("latin-1")}
    body = {"model": "m", "end": service.now + 60, "reason": "r"}
    answer = service.client.post("maintenance", json=body, headers=headers)
    error = refused(answer, 401, "authorization")
    assert "secret" not in error["remedy"] + error["value"]
    assert answer.headers["www-authenticate"] == "Bearer"
    refused(service.client.delete("maintenance/x", headers=headers), 401, "authorization")
    refused(
        service.client.post(
            "references/import", content=b"", headers={**headers, "content-type": "application/zip"}
        ),
        401,
        "authorization",
    )
    assert service.get("maintenance").json() == {"windows": []}
    assert service.get("alarms").status_code == 200


def test_with_its_token_a_call_is_done(tmp_path):
    service = Service(tmp_path, token="secret")
    body = {"model": "m", "end": service.now + 60, "reason": "r"}
    assert service.client.post("maintenance", json=body, headers={"authorization": "Bearer secret"}).json()
    assert len(service.get("maintenance").json()["windows"]) == 1


def test_deploys_are_announced_listed_and_withdrawn(service):
    window = service.post("maintenance", model="m", end=service.now + 60, reason="new weights").json()[
        "window"
    ]
    assert window["start"] == service.now
    assert service.get("maintenance").json()["windows"] == [window]
    assert service.client.delete(f"maintenance/{window['id']}").json() == {"withdrawn": window["id"]}
    assert service.get("maintenance").json()["windows"] == []
    refused(service.client.delete(f"maintenance/{window['id']}"), 404, "id")
    too_long = service.post("maintenance", end=service.now + 7 * 86_400, reason="r")
    assert "in parts" in refused(too_long, 409, "/api/v1/maintenance")["remedy"]
    refused(
        service.client.post("maintenance", content=b'{"end": 1e999, "reason": "r"}', headers=JSON), 400, "end"
    )


def test_a_reference_is_exported_and_imported_with_the_same_hash(service, tmp_path):
    (shown,) = service.get("references", model="m").json()["references"]
    assert service.get("references", model="n").json()["references"] == []
    exported = service.get("references/export", model="m")
    assert exported.headers["content-type"] == "application/zip"
    other = Service(tmp_path / "other")
    imported = other.client.post(
        "references/import", content=exported.content, headers={"content-type": "application/zip"}
    )
    assert imported.json()["reference"]["content_sha256"] == shown["reference"]["content_sha256"]
    refused(service.get("references/export"), 400, "model")
    refused(service.get("references/export", model="n"), 404, "model")
    refused(service.get("references/export", model="m", which="draft"), 404, "model")
    refused(service.get("references/export", model="m", which="old"), 400, "which")


def test_a_file_that_is_damaged_or_of_something_else_is_refused_and_changes_nothing(service, tmp_path):
    data = service.get("references/export", model="m").content
    other = Service(tmp_path / "other")
    other.traffic.who["dtype"] = "bfloat16"
    other.run(1)
    zipped = {"content-type": "application/zip"}
    for content, said in ((data, "dtype is 'float32', not 'bfloat16'"), (data[:-100], "export it again")):
        answer = other.client.post("references/import", content=content, headers=zipped)
        assert said in refused(answer, 400, "reference")["remedy"]
    assert other.get("references").json()["references"][0]["state"] == "none"


def test_promoting_what_there_is_too_little_of_says_how_much_it_takes(tmp_path):
    service = Service(tmp_path)
    service.run(1)
    answer = service.post("references/promote", model="m")
    assert "60 clusters" in refused(answer, 409, "/api/v1/references/promote")["remedy"]
    service.run(3)
    assert service.post("references/promote", model="m").json()["reference"]["state"] == "frozen"
    answer = service.post("canaries/promote", model="m")
    assert "no rounds" in refused(answer, 409, "/api/v1/canaries/promote")["remedy"]


def test_endpoints_of_canaries_are_shown_with_their_last_error(service):
    answer = service.get("canaries").json()
    assert answer["endpoints"] == [ENDPOINT]
    assert [one["model"] for one in answer["canaries"]] == ["m"]
    assert answer["canaries"][0]["wanted"]  # triage asks it


def test_evidence_is_null_before_there_is_any_and_numbers_that_are_not_finite_are_null(tmp_path):
    (one, *_) = Service(tmp_path, detection=AsSeen()).get("canaries").json()["canaries"]
    assert [replica.get("ratio") for replica in one["replicas"]] == [0.75, None, None]
    detection = Service(tmp_path / "2", detection=AsSeen()).get("detection").json()
    assert {one["detector"]: one["log10"] for one in detection["levels"]}["bank"] is None


def test_secrets_in_addresses_are_no_labels():
    hook = "https://user:word@hooks.example:8443/services/T0/secret?key=1"
    told = NotifyStats({hook: 1}, {hook: 2}, {(hook, "timeout"): 3}, {}, {})
    endpoint = {**ENDPOINT, "url": "http://me:word@vllm:8000/v1"}
    samples = [s for f in detection_families(AsSeen(), [endpoint], told) for s in f.samples]
    said = {value for sample in samples for value in sample.labels.values()}
    assert {"hooks.example:8443", "vllm:8000"} <= said
    assert not any("word" in text or "secret" in text for text in said)


class Many(AsSeen):
    """Canaries of more replicas than anybody looks at one by one."""

    def canaries(self):
        (one,) = super().canaries()
        still = one["replicas"][0]
        return [{**one, "replicas": [{**still, "replica": f"r{i}"} for i in range(5000)]}]


def test_series_of_replicas_are_bounded():
    samples = [s for f in detection_families(Many(), [], IDLE) for s in f.samples]
    assert sum(sample.name == "introspan_canary_distance" for sample in samples) == 1000


@pytest.mark.thorough
def test_reading_and_deciding_disturb_no_detector_that_reads_on(tmp_path):
    service, stop = Service(tmp_path), threading.Event()

    def read():
        while not stop.is_set():
            service.run(1)

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        try:
            for i in range(30):
                for path in ("alarms", "references", "canaries", "detection", "maintenance"):
                    assert service.get(path).status_code == 200
                assert service.post("maintenance", end=service.now + 1e4, reason=f"{i}").status_code == 200
                assert service.post("references/promote", model="m").status_code in (200, 409)
        finally:
            stop.set()
        reading.result()

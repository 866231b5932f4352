"""What the pages are made of: nothing of the network runs in them, and they show what the API says."""

import json
import re
import time
from dataclasses import fields, replace
from html.parser import HTMLParser

import numpy as np
import pytest
from starlette.testclient import TestClient

from introspan_collector.aggregate.aggregator import Aggregator
from introspan_collector.archive.archive import Archive
from introspan_collector.detect.detector import Detector
from introspan_collector.detect.report import Report
from introspan_collector.detect.settings import DetectSettings
from introspan_collector.expose.app import build
from introspan_collector.expose.page.assets import assets
from introspan_collector.expose.page.words import STATES, age, duration, number, percent
from introspan_collector.model import Batch
from tests.exposed import watched_sources
from tests.insides import Insides

HOSTILE = "<img src=x onerror=alert(1)>\"'{{7*7}}&<script>alert(1)</script>"
SETTINGS = DetectSettings(provisional_clusters=150, frozen_clusters=400, frozen_hours=0.0)


class Served:
    """A collector's parts that have seen ten minutes of a model's traffic, and the pages over them."""

    def __init__(self, folder, model="m", token=None, prefix="chatcmpl"):
        self.insides = Insides(model, prefix=prefix)
        self.now = time.time()
        self.aggregator = Aggregator()
        self.archive = Archive(folder)
        self.detector = Detector(SETTINGS, clock=lambda: self.now)
        self.sources = watched_sources(
            self.aggregator,
            self.archive,
            lambda: None,
            lambda: True,
            detection=Report(self.detector, lambda: self.now),
            token=token,
        )
        self.client = TestClient(build(self.sources))
        self.offset = 0

    def take(self, count=20, **fault):
        return self.give(self.insides.tables(count, self.now, **fault))

    def give(self, tables):
        offset, self.offset = self.offset, self.offset + 1_000
        batch = Batch(
            offset, self.offset, int(self.now * 1e9), b"p" * 16, self.offset, self.insides.origin, tables,
            self.insides.status(disabled=True),
        )  # fmt: skip
        for part in (self.aggregator, self.archive, self.detector):
            part.consume(batch)
        return tables

    def warm(self):
        began, self.now = self.now, self.now - 600
        while self.now < began:
            self.now += 10
            self.take()
            self.detector.advance()
        return self

    def break_layers(self):
        for _ in range(60):
            self.now += 10
            self.take(shift=6.0)
            self.detector.advance()
            if self.detector.incidents.open():
                return self.detector.incidents.open()[0]
        raise AssertionError("nothing was found")

    def page(self, path, **parameters):
        return self.client.get(path, params=parameters)

    def api(self, path, **parameters):
        return self.client.get(f"/api/v1/{path}", params=parameters).raise_for_status().json()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Everything that comes from the network has markup in it, and something is the matter."""
    served = Served(tmp_path_factory.mktemp("hostile"), model=HOSTILE, prefix=HOSTILE, token="secret").warm()
    served.incident = served.break_layers()
    return served


class Elements(HTMLParser):
    """Names and attributes of every element of a page."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def every_page(served):
    request = served.api("requests", model=HOSTILE, limit=1)["requests"][0]["request_id"]
    return {
        "/": {},
        "/model": {"model": HOSTILE, "signal": "residual.turn", "range": "6h"},
        "/request": {"id": request},
        "/incidents": {},
        "/incident": {"id": served.incident.id},
        "/canary": {},
    }


def test_markup_in_names_of_models_and_ids_of_requests_is_text(hostile):
    for path, parameters in every_page(hostile).items():
        answer = hostile.page(path, **parameters)
        assert answer.status_code == 200, path
        elements = Elements(answer.text).found
        assert [one for one in elements if one[0] == "script"] == [
            ("script", {"type": "module", "src": "static/page.js"})
        ]
        assert {one["src"] for tag, one in elements if tag == "img"} == {"static/mark.svg"}
        assert not [name for _, one in elements for name in one if name.startswith("on")], path
        assert "49" not in re.findall(r"\{\{7\*7\}\}|49&amp;", answer.text)
        if path not in ("/incidents", "/canary"):
            assert "&lt;script&gt;alert(1)" in answer.text, path


def test_an_unknown_thing_is_said_without_running_what_was_asked(hostile):
    for path, parameters in {
        "/model": {"model": f"{HOSTILE}x"},
        "/incident": {"id": HOSTILE},
        "/request": {"id": f"none{HOSTILE}"},
    }.items():
        answer = hostile.page(path, **parameters)
        assert answer.status_code == 404, path
        assert "<script>alert" not in answer.text
        assert "&lt;script&gt;" in answer.text
    for wrong in ({"range": "9y"}, {"scale": HOSTILE}, {"signal": "no.signal"}, {"colour": "red"}):
        answer = hostile.page("/model", model=HOSTILE, **wrong)
        assert answer.status_code == 400, wrong
        assert "<script>alert" not in answer.text


def test_a_page_may_load_only_what_the_collector_serves(hostile):
    answer = hostile.page("/")
    policy = dict(one.strip().split(" ", 1) for one in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[f"{kind}-src"] for kind in ("script", "style", "img", "connect")} == {"'self'"}
    assert policy["frame-ancestors"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer", "ids of requests are in addresses"
    for path, parameters in every_page(hostile).items():
        for tag, one in Elements(hostile.page(path, **parameters).text).found:
            assert "style" not in one, "the policy would not apply it"
            for name in ("src", "href", "action"):
                assert not one.get(name, "").startswith(("http:", "https:", "//", "/")), (path, tag, one)


def test_scripts_and_styles_name_no_other_place_and_are_not_sent_twice(hostile):
    for name, one in assets().items():
        assert not re.search(rb"""["'(]\s*(https?:)?//(?!www\.w3\.org)""", one.body), name
        unsafe = rb"(innerHTML|outerHTML)\s*=[^=]|insertAdjacentHTML|document\.write"
        assert not re.search(unsafe, one.body), "text of the network must stay text"
        assert b"eval(" not in one.body
        answer = hostile.page(f"/static/{name}")
        assert answer.content == one.body
        again = hostile.client.get(f"/static/{name}", headers={"if-none-match": answer.headers["etag"]})
        assert again.status_code == 304
    assert hostile.page("/static/site.py").status_code == 404
    assert hostile.client.get("/static/..%2Fsite.py").status_code == 404
    assert hostile.page("/static/nothing.js").status_code == 404


def test_only_an_incident_that_lasts_can_be_acknowledged_and_the_token_is_asked_for_where_there_is_one(
    hostile,
):
    page = hostile.page("/incident", id=hostile.incident.id).text
    fields = {one.get("name") for tag, one in Elements(page).found if tag == "input"}
    assert {"by", "comment", "accept_as_class", "token"} <= fields
    assert "secret" not in page


def test_what_pages_show_is_what_the_api_says(hostile):
    alarm = hostile.api(f"alarms/{hostile.incident.id}")
    page = hostile.page("/incident", id=alarm["id"]).text
    text = re.sub(r"<[^>]+>", " ", page)
    for sentence in (*alarm["triage"]["reasons"], alarm["guarantee"], alarm["evidence"][0]["sentence"]):
        assert sentence.split("'")[0][:60] in text
    assert page.count("request?id=") == len(alarm["exemplars"]) > 0
    fleet = hostile.page("/").text
    assert f"incident?id={alarm['id']}" in fleet
    latest = hostile.api("latest", model=HOSTILE, signal="residual.log_rms")["series"]
    model = hostile.page("/model", model=HOSTILE).text
    table = re.search(r'<table id="table".*?</table>', model, re.DOTALL).group()
    assert len(re.findall(r"<tr>", table)) - 1 == len(latest) == 8
    for series in latest:
        assert number(series["mean"], 4) in table


def test_an_address_with_an_end_shows_that_time_and_a_wrong_one_is_refused(hostile):
    page = hostile.page("/model", model=HOSTILE, range="6h", to="1800000000")
    charts = [one for tag, one in Elements(page.text).found if one.get("data-chart") in ("layers", "lines")]
    assert {(one["data-to"], one["data-range-seconds"]) for one in charts} == {("1800000000.0", "21600")}
    assert "2027-01-15 08:00:00" in page.text
    assert hostile.page("/model", model=HOSTILE, to="<b>").status_code == 400


def test_a_request_says_what_made_it_unusual(hostile):
    exemplar = hostile.api(f"alarms/{hostile.incident.id}")["exemplars"][0]
    found = hostile.api("request", id=exemplar["request_id"])["requests"][0]
    least = min(found["judged"], key=lambda one: one["rank"])
    assert least["rank"] < 0.01
    assert least["by"]["layer"] >= 17
    assert least["deviations"][0]["z"] > 3
    page = hostile.page("/request", id=exemplar["request_id"]).text
    assert "unlike every healthy request" in page
    assert f"incident?id={hostile.incident.id}" in page
    assert found["trace_id"] in page
    assert found["trace_id"] == exemplar["trace_id"]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return Served(tmp_path_factory.mktemp("healthy")).warm()


def test_a_healthy_fleet_is_quiet(healthy):
    page = healthy.page("/").text
    assert "no open incident" in page
    assert "frozen reference" in page
    assert "<title>Fleet" in page
    assert json.dumps(healthy.api("alarms")) == '{"alarms": []}'


def test_a_fresh_collector_says_what_to_do(tmp_path):
    sources = watched_sources(Aggregator(), Archive(tmp_path), lambda: None, lambda: True)
    page = TestClient(build(sources)).get("/").text
    assert "INTROSPAN_ENDPOINT" in page


def test_every_state_has_a_sign_and_words():
    assert all(sign and words for sign, words in STATES.values())


def test_numbers_are_written_for_reading():
    assert [number(value) for value in (None, float("nan"), float("inf"), 0, 1.2345, -0.0123, 1234567.0, 1e-9)] == [
        "–", "–", "∞", "0", "1.23", "−0.0123", "1.23e6", "1.00e−9",
    ]  # fmt: skip
    assert [percent(value) for value in (None, 0.25, 1.0)] == ["–", "25\u202f%", "100\u202f%"]
    assert [duration(value) for value in (None, 5, 150, 7_300, 200_000)] == [
        "–", "5\u202fs", "2\u202fmin", "2\u202fh", "2\u202fd",
    ]  # fmt: skip
    assert (age(90.0, 100.0), age(100.0, 100.0)) == ("10\u202fs ago", "now")


def test_a_request_is_shown_token_by_token_where_its_tokens_came_by_themselves(tmp_path):
    served = Served(tmp_path)
    of_stretches = served.take(1, segments=2)
    single = {"token_count": np.ones(1, np.uint32), "measured_count": np.ones(1, np.uint32)}
    of_tokens = served.give(
        tuple(
            replace(one, token_start=np.array([99 + number], np.uint32), **single)
            for number, one in enumerate(served.insides.tables(1, served.now, segments=4))
        )
    )
    for tables, said, not_said in (
        (of_stretches, "A column is a segment", "A column is a measured token"),
        (of_tokens, "A column is a measured token", "A column is a segment"),
    ):
        text = served.page("/request", id=tables[0].request_id[0]).text
        assert said in text
        assert not_said not in text
    assert "Outputs, token by token" in text
    assert [one["token_start"] for one in asked(served, of_tokens)["segments"]] == [99, 100, 101, 102, 103]


def asked(served, tables, **parameters):
    (found,) = served.api("request", id=tables[0].request_id[0], **parameters)["requests"]
    return found


def test_requests_are_listed_though_the_last_of_them_has_very_many_segments(tmp_path):
    served = Served(tmp_path)
    first = served.take(3)
    served.now += 1
    last = served.give(tuple(one for _ in range(20) for one in served.insides.tables(1, served.now)[1:]))
    renamed = tuple(replace(one, request_id=["chatcmpl-long"]) for one in last)
    served.give(renamed)
    found = [one["request_id"] for one in served.api("requests", model="m", limit=3)["requests"]]
    assert found[0] == "chatcmpl-long"
    assert len(found) == 3
    assert served.api("requests", model="m", limit=200)["requests"][-1]["request_id"] in first[0].request_id


def test_of_a_long_request_a_thousand_segments_are_given_and_of_one_signal_if_one_is_asked_for(tmp_path):
    served = Served(tmp_path)
    prompt, decoded = served.insides.tables(1, served.now)
    count = 1_200
    numbers = np.arange(1, count + 1, dtype=np.uint32)
    same = {
        field.name: np.repeat(getattr(decoded, field.name), count, axis=0)
        for field in fields(decoded)
        if field.name not in ("schema", "request_id", "adapter")
    }
    many = replace(
        decoded,
        **same | {"segment_index": numbers, "token_start": 99 + numbers},
        request_id=list(decoded.request_id) * count,
        adapter=[""] * count,
    )
    served.give((prompt, many))
    found = asked(served, (prompt,), signal="residual.turn")
    assert (len(found["segments"]), found["left_out_segments"]) == (1_000, 201)
    assert {value["signal"] for one in found["segments"] for value in one["values"]} == {"residual.turn"}
    text = served.page("/request", id=prompt.request_id[0]).text
    assert "201 later ones are not shown" in text
    assert len(text) < 300_000


def test_instances_of_a_model_are_behind_their_number_the_silent_one_first(tmp_path):
    served = Served(tmp_path)
    served.now -= 600
    served.take(1)
    served.now += 600
    served.insides = Insides("m", "r1")
    served.take(1)
    text = served.page("/").text
    (behind,) = re.findall(r'<details data-key="m">(.*?)</details>', text, re.DOTALL)
    assert re.findall(r"<li>(r\d) ", behind) == ["r0", "r1"]
    assert behind.count("◆ 10\u202fmin ago") == 1
    assert "<summary>2</summary>" in behind

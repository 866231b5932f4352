"""Batches of a day of traffic in; the detector must stay silent, speak, say why, and fall silent again."""

from dataclasses import replace

import pytest

from introspan_collector.detect.detector import Detector
from introspan_collector.detect.incident.incident import State
from introspan_collector.detect.settings import DetectSettings
from introspan_collector.notice import Links, Severity
from introspan_wire.signals import Kind
from tests.batches import Traffic

SETTINGS = DetectSettings(
    provisional_clusters=500, frozen_clusters=2000, frozen_hours=0.5, quiet_seconds=120.0, quiet_requests=200
)


class Day:
    """A detector, its clock, and what people were told."""

    def __init__(self, settings=SETTINGS):
        self.now = 1_800_000_000.0
        self.told = []
        self.detector = Detector(settings, self.told.append, Links("runbook.md"), lambda: self.now)
        self.traffic = Traffic()

    def run(self, ticks, requests=20, **fault):
        for _ in range(ticks):
            for _ in range(2):
                self.now += 5.0
                self.detector.consume(self.traffic.batch(requests // 2, self.now, **fault))
                self.detector.advance()
        return self

    @property
    def open(self):
        return self.detector.incidents.open()


@pytest.fixture(scope="module")
def healthy_state():
    day = Day().run(240)
    assert not day.told
    return day.now, day.traffic.requests, day.detector.snapshot()


@pytest.fixture
def day(healthy_state):
    """Forty minutes of healthy traffic lie behind: the reference is frozen."""
    day = Day()
    day.now, day.traffic.requests, state = healthy_state
    day.traffic.rng = type(day.traffic)(seed=1).rng
    day.detector.restore(state)
    return day


def test_healthy_traffic_is_silent(day):
    day.run(100)
    assert not day.told
    assert not day.open


def test_a_wrong_temperature_is_the_samplers(day):
    day.run(60, temperature=1.5)
    (incident,) = day.open
    assert incident.triage.verdict.value == "sampler"
    assert incident.severity is Severity.CRITICAL


def test_a_wrong_temperature_is_found_before_any_answer_has_ended():
    day = Day()
    for _ in range(60):
        day.now += 5.0
        batch = day.traffic.batch(10, day.now, temperature=1.5)
        prompts = tuple(table for table in batch.tables if table.schema.kind is Kind.PROMPT)
        day.detector.consume(replace(batch, tables=prompts))
        day.detector.advance()
    (incident,) = day.open
    assert incident.triage.verdict.value == "sampler"


def test_a_shift_within_the_classes_pages_and_is_over_when_it_is_gone(day):
    day.run(40, shift=2.0)
    (incident,) = day.open
    assert incident.severity is Severity.CRITICAL
    assert incident.triage.verdict.value == "model or engine"
    assert incident.exemplars
    assert {clue.stream.layer for clue in incident.evidence if clue.stream.detector == "bank"} == {16}
    day.run(60)
    assert not day.open
    (ended,) = day.detector.incidents.history()
    assert ended.state is State.RESOLVED
    assert day.told[-1].ended_unix_seconds is not None


def test_a_value_that_is_not_finite_pages_at_once(day):
    day.detector.consume(day.traffic.batch(4, day.now, nonfinite=3))
    (incident,) = day.open
    assert incident.severity is Severity.CRITICAL
    assert incident.alertname == "IntrospanOutputNotFinite"
    assert incident.exemplars[0].request_id.startswith("r0-")


def test_a_restart_repeats_and_forgets_no_evidence(day):
    twin = Day()
    day.run(8, shift=1.0)
    twin.now, twin.traffic = day.now, day.traffic
    twin.detector.restore(day.detector.snapshot())
    assert twin.detector.snapshot() == day.detector.snapshot()
    batches = [day.traffic.batch(10, day.now + 5.0 * (i + 1), shift=2.0) for i in range(60)]
    for one in (day, twin):
        start = one.now
        for i, batch in enumerate(batches):
            one.now = start + 5.0 * (i + 1)
            one.detector.consume(batch)
            one.detector.advance()
    assert twin.detector.snapshot() == day.detector.snapshot()
    assert day.open


def test_traffic_of_an_open_incident_enters_no_reference(day):
    before = day.detector.progress()
    day.run(40, shift=3.0)
    assert day.open
    assert day.detector.progress() == before

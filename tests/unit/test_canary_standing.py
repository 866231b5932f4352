"""Canaries that answer late, no longer, or never: what is said of them, and what then waits for them."""

from dataclasses import replace

import pytest

from introspan_collector.detect.detector import Detector
from introspan_collector.detect.report import Report
from introspan_collector.detect.settings import DetectSettings
from introspan_collector.notice import Links
from tests.batches import Traffic
from tests.canary_rounds import Fault, Model, output_batch, state_batch

HOUR_SECONDS = 3600.0
ROUNDS = 8
SETTINGS = DetectSettings(
    provisional_clusters=200,
    frozen_clusters=400,
    frozen_hours=0.0,
    canary_rounds=ROUNDS,
    quiet_seconds=600.0,
    quiet_requests=10_000,
)
HEALTHY = Fault()


class Served:
    """A detector, its clock, a model's traffic and its canary."""

    def __init__(self, settings=SETTINGS):
        self.now = 1_800_000_000.0
        self.settings = settings
        self.told = []
        self.detector = Detector(settings, self.told.append, Links("runbook.md"), lambda: self.now)
        self.report = Report(self.detector, lambda: self.now)
        self.traffic = Traffic()

    def run(self, ticks, **fault):
        for _ in range(ticks):
            self.now += 10.0
            self.detector.consume(self.traffic.batch(20, self.now, **fault))
            self.detector.advance()
        return self

    def ask(self, rounds=1, fault=HEALTHY, model=None):
        for _ in range(rounds):
            self.now += 1.0
            self.hear(self.round(fault, model))
        return self

    def round(self, fault=HEALTHY, model=None):
        """The answers of a round, in the order in which they come."""
        return list((model or Model()).round(self.traffic.rng, int(self.now * 10), fault).values())

    def hear(self, answers):
        for answer in answers:
            self.detector.consume(output_batch(answer, self.now))
            self.detector.consume(state_batch(answer, self.now))
        self.detector.advance()

    def restarted(self):
        twin = Served(self.settings)
        twin.now, twin.traffic = self.now, self.traffic
        twin.detector.restore(self.detector.snapshot())
        return twin

    @property
    def canary(self):
        (one,) = self.report.canaries()
        return one

    @property
    def reference(self):
        (one,) = self.report.references()
        return one

    @property
    def verdict(self):
        (incident,) = self.detector.incidents.open()
        return incident.triage.verdict.value


@pytest.fixture
def served():
    """A model with a baseline of its canary and a provisional reference."""
    found = Served().run(1).ask(ROUNDS + 1).run(10)
    assert (found.canary["state"], found.reference["state"]) == ("still", "provisional")
    return found


@pytest.fixture
def shifted(served):
    """The same at the moment at which new traffic becomes an incident, with a canary's round under way."""
    while not served.detector.incidents.open():
        under_way = served.round()
        served.hear(under_way[:1])
        served.run(1, outside=30.0)
    assert served.verdict == "pending"
    return served, under_way[1:]


def test_how_a_canary_stands_is_said_of_every_model_that_is_watched():
    served = Served().run(1)
    assert served.canary["state"] == "none"
    assert served.ask(1).canary["state"] == "gathering"
    assert served.ask(ROUNDS).canary["state"] == "still"
    assert served.ask(1, Fault(5, 0.0)).canary["state"] == "deviating"
    assert served.ask(1).canary["state"] == "still"
    served.now += HOUR_SECONDS
    assert served.canary["state"] == "silent"
    assert served.canary["replicas"][0]["age_seconds"] == pytest.approx(HOUR_SECONDS)
    assert served.restarted().canary["state"] == "silent"
    assert served.ask(1).canary["state"] == "still"


def test_while_no_canary_answers_any_more_no_reference_is_frozen_and_that_is_said(served):
    served.now += 2 * HOUR_SECONDS
    served.run(60)
    assert served.reference["state"] == "provisional"
    (building,) = served.reference["building"]
    (objection,) = building["objections"]
    assert objection.startswith("no canary has answered for 2.")
    with pytest.raises(ValueError, match="no canary has answered for 2"):
        served.report.promote("m", "")
    served.ask(1).run(3)
    assert served.reference["state"] == "frozen"


def test_where_no_canary_was_ever_asked_a_reference_is_frozen_without_one():
    served = Served().run(80)
    assert (served.reference["state"], served.canary["state"]) == ("frozen", "none")


def test_a_replica_that_is_gone_is_forgotten_after_a_day_and_the_last_one_never():
    served = Served()
    gone = Model()
    gone.origin = replace(gone.origin, replica="r9")
    served.run(1).ask(1, model=gone)
    for _ in range(50):
        served.now += HOUR_SECONDS
        served.ask(1).run(1)
    assert [one["replica"] for one in served.canary["replicas"]] == ["r0"]
    for _ in range(50):
        served.now += HOUR_SECONDS
        served.run(1)
    assert [one["replica"] for one in served.canary["replicas"]] == ["r0"]
    assert served.canary["state"] == "silent"


def test_a_round_that_was_under_way_when_the_canary_was_asked_is_not_its_answer(shifted):
    served, rest = shifted
    served.now += 5.0
    served.hear(rest)
    assert served.canary["replicas"][0]["compared"], "that one is over"
    assert (served.verdict, served.detector.wanted("m")) == ("pending", True)
    served.now += 5.0
    served.hear(served.round())
    assert (served.verdict, served.detector.wanted("m")) == ("traffic", False)


def test_an_answer_that_comes_after_half_a_minute_still_decides(shifted):
    served, rest = shifted
    served.now += 20.0
    served.hear(rest)
    served.now += 15.0
    served.detector.advance()
    assert (served.verdict, served.detector.wanted("m")) == ("undetermined", True)
    told = len(served.told)
    served.hear(served.round())
    assert (served.verdict, served.detector.wanted("m")) == ("traffic", False)
    assert len(served.told) == told + 1


def test_a_canary_is_wanted_until_everybody_who_asks_has_looked(shifted):
    served, _ = shifted
    served.now += 0.5
    served.hear(served.round())
    assert (served.verdict, served.detector.wanted("m")) == ("traffic", True)
    served.now += 2.0
    served.hear(served.round())
    assert not served.detector.wanted("m")


def test_a_canary_that_was_asked_before_a_restart_is_asked_after_it(shifted):
    served, _ = shifted
    twin = served.restarted()
    assert twin.detector.wanted("m")
    twin.now += 5.0
    twin.hear(twin.round())
    assert (twin.verdict, twin.detector.wanted("m")) == ("traffic", False)


def test_a_clock_that_was_set_back_has_no_canary_asked_for_ever(shifted):
    served, _ = shifted
    served.now -= 24 * HOUR_SECONDS
    served.hear(served.round())
    assert not served.detector.wanted("m")


def test_what_is_too_near_for_the_rule_of_two_rounds_becomes_a_ticket_and_then_a_page():
    """As one spoilt block of the cache in bfloat16: beyond every healthy round, and not beyond eight floors."""
    served, model, fault = Served(replace(SETTINGS, canary_rounds=64)), Model("bfloat16"), Fault(cache=0.05)
    for _ in range(66):
        served.now += 59.0
        served.ask(1, model=model)
    severities = []
    for _ in range(8):
        served.now += 49.0
        served.ask(1, fault, model)
        served.now += 10.0
        served.detector.advance()
        (replica,) = served.canary["replicas"]
        assert not replica["deviates"]
        severities += [one.severity.value for one in served.detector.incidents.open()]
    assert served.verdict == "model or engine"
    (incident,) = served.detector.incidents.open()
    assert "further off than every one of its baseline" in incident.evidence[0].sentence
    assert incident.guarantee.startswith("Expected at most one false alarm in 30 days")
    assert severities.count("warning") >= 1
    assert severities.count("critical") >= 2, "within six rounds or so"

"""From alarms to incidents that open, change and end."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from introspan_collector.detect.incident.announcement import notice
from introspan_collector.detect.incident.clues import MOST_CLUES, MOST_EXEMPLARS
from introspan_collector.detect.incident.finding import Copy, Exemplar, Finding, Subject
from introspan_collector.detect.incident.incident import ALERTNAMES, Acknowledgement, State, alertname
from introspan_collector.detect.incident.incidents import Change, Incidents
from introspan_collector.detect.incident.maintenance import LONGEST_SECONDS, MOST_WINDOWS, Window
from introspan_collector.detect.incident.reconsider import CanaryReport
from introspan_collector.detect.incident.record import as_json
from introspan_collector.detect.incident.settings import IncidentSettings
from introspan_collector.detect.incident.triage import Canary, Verdict
from introspan_collector.detect.sequential.alarm import Alarm, Carrier
from introspan_collector.detect.sequential.evidence import SHARES
from introspan_collector.notice import Links, Severity
from tests.incidents import finding, stream

M = Subject("m", "")
START = 1_000_000.0


def changes(events):
    return [event.change for event in events]


def only(events):
    (event,) = events
    return event


def report(state, at, replica="r0", **more):
    return CanaryReport("m", replica, state, at, **more)


def test_alarms_of_a_model_and_adapter_are_one_incident():
    book = Incidents()
    first = only(book.take(finding(), START))
    again = only(book.take(finding(stream("drift"), at=10.0), START + 10))
    other = only(book.take(finding(stream(adapter="lora")), START + 10))
    assert changes([first, again, other]) == [Change.OPENED, Change.UPDATED, Change.OPENED]
    assert again.incident.id == first.incident.id != other.incident.id
    assert {clue.stream.detector for clue in again.incident.evidence} == {"bank", "drift"}
    assert [one.subject for one in book.open()] == [M, Subject("m", "lora")]


def test_reading_the_same_log_again_gives_the_same_incident():
    assert Incidents(name="a").take(finding(), START) == Incidents(name="a").take(finding(), START)


def test_an_incident_that_a_crash_forgot_has_its_id_again_when_the_log_brings_it_back():
    before = Incidents()
    saved = before.snapshot()
    (told,) = before.take(finding(), START)
    after = Incidents()
    after.restore(saved)
    (again,) = after.take(finding(), START + 30)
    assert again.incident.id == told.incident.id
    other = Incidents().take(finding(), START)[0]
    assert other.incident.id != told.incident.id


def test_a_page_makes_a_ticket_critical_and_undoes_its_acknowledgement():
    book = Incidents()
    opened = only(book.take(finding(), START)).incident
    assert opened.severity is Severity.WARNING
    book.acknowledge(opened.id, Acknowledgement("ann", "known", START + 1))
    paged = only(book.take(finding(copy=Copy.PAGE), START + 2))
    assert (paged.change, paged.incident.severity, paged.incident.state) == (
        Change.ESCALATED,
        Severity.CRITICAL,
        State.OPEN,
    )
    later = only(book.take(finding(), START + 20))
    assert (later.change, later.incident.severity) == (Change.UPDATED, Severity.CRITICAL)


def test_a_stream_keeps_its_highest_level_and_when_it_was_first_and_last_seen():
    book = Incidents()
    for at, level in ((1.0, 0.2), (2.0, 3.0), (3.0, 0.4)):
        book.take(finding(level=level, at=at), START + at)
    (clue,) = only(book.open()).evidence
    assert (clue.level, clue.first_unix_seconds, clue.last_unix_seconds) == (3.0, 1.0, 3.0)


def test_more_of_the_same_is_told_now_and_then_and_what_is_new_at_once():
    book = Incidents(IncidentSettings(update_seconds=10.0))
    told = [START + i for i in range(25) if book.take(finding(at=float(i)), START + i)]
    assert told == [START, START + 10, START + 20]
    assert only(book.open()).evidence[0].last_unix_seconds == 24.0
    assert book.take(finding(stream("drift")), START + 24.5)
    assert book.take(finding(replicas=("r9",)), START + 24.6)


def test_what_cannot_happen_has_a_level_that_json_can_hold_and_no_rate():
    impossible = finding(
        stream("nonfinite", signal="output.nonfinite"),
        copy=Copy.PAGE,
        level=math.inf,
        false_alarm_seconds=math.inf,
    )
    incident = only(Incidents().take(impossible, START)).incident
    assert incident.evidence[0].level == 300.0
    assert incident.evidence[0].false_alarm_seconds is None
    assert "never shows this" in incident.guarantee
    assert incident.triage.verdict is Verdict.MODEL


@pytest.mark.parametrize(("copy", "days"), [(Copy.TICKET, "1 day "), (Copy.PAGE, "30 days ")])
def test_the_guarantee_is_that_of_the_strictest_copy_that_spoke(copy, days):
    book = Incidents()
    book.take(finding(), START)
    book.take(finding(copy=copy), START)
    incident = only(book.open())
    assert f"at most one false alarm in {days}over everything" in incident.guarantee


def test_evidence_and_exemplars_are_bounded_and_the_strongest_kept():
    book = Incidents()
    for i in range(100):
        exemplar = Exemplar(f"request-{i}", "", "r0", "output.entropy", float(i), "z")
        one = finding(stream(layer=i), level=float(i), exemplars=(exemplar,))
        event = only(book.take(one, START + i))
    incident = event.incident
    assert [clue.stream.layer for clue in incident.evidence] == list(range(99, 99 - MOST_CLUES, -1))
    assert incident.unlisted_clues == 100 - MOST_CLUES
    # Beyond z = 37 a Gaussian's tail is too small for a float: they are all as surprising as can be.
    assert len(incident.exemplars) == MOST_EXEMPLARS
    assert all(one.score > 37 for one in incident.exemplars)


def test_exemplars_with_a_z_and_with_a_p_value_are_ranked_together():
    exemplars = (
        Exemplar("small-z", "", "", "f", 2.0, "z"),
        Exemplar("small-p", "", "", "f", 1e-9, "p"),
        Exemplar("negative-z", "", "", "f", -5.0, "z"),
    )
    incident = only(Incidents().take(finding(exemplars=exemplars), START)).incident
    assert [one.request_id for one in incident.exemplars] == ["small-p", "negative-z", "small-z"]


def test_a_recovered_subject_ends_its_incident_and_the_next_alarm_opens_another():
    book = Incidents()
    first = only(book.take(finding(), START)).incident
    assert book.recovered(Subject("m", "lora"), START + 1) == []
    ended = only(book.recovered(M, START + 900))
    assert (ended.change, ended.incident.state) == (Change.RESOLVED, State.RESOLVED)
    assert ended.incident.resolved_unix_seconds == START + 900
    assert (book.open(), book.history()) == ((), (ended.incident,))
    assert book.find(first.id) == ended.incident
    assert only(book.take(finding(), START + 901)).incident.id != first.id


@pytest.mark.parametrize(
    ("state", "at", "is_doubted"),
    [(Canary.STILL, 5, False), (Canary.STILL, -5, True), (Canary.SILENT, 5, True), (None, 0, True)],
)
def test_what_a_canary_found_does_not_end_for_lack_of_canaries_without_saying_so(state, at, is_doubted):
    book = Incidents()
    book.take(finding(stream("canary"), at=START), START)
    if state is not None:
        book.hear(report(state, START + at), START + 6)
    ended = only(book.recovered(M, START + 900)).incident
    assert ("No canary has found it still since then" in ended.resolution) is is_doubted


def test_a_new_reference_ends_the_incident_and_is_named():
    book = Incidents()
    book.take(finding(reference="old"), START)
    ended = only(book.promote(M, "abc123", START + 5)).incident
    assert "abc123" in ended.resolution
    assert ended.reference == "old"


def test_history_is_bounded():
    book = Incidents(IncidentSettings(history_limit=3))
    for i in range(5):
        book.take(finding(), START + i)
        book.recovered(M, START + i + 0.5)
    assert [one.opened_unix_seconds for one in book.history()] == [START + 2, START + 3, START + 4]


def test_a_flood_of_adapters_is_refused_and_counted_but_a_page_finds_room():
    book = Incidents(IncidentSettings(open_limit=2))
    for i in range(5):
        book.take(finding(stream(adapter=f"a{i}")), START + i)
    assert [one.subject.adapter for one in book.open()] == ["a0", "a1"]
    assert book.refused_findings == 3
    events = book.take(finding(stream(adapter="paged"), copy=Copy.PAGE), START + 9)
    assert changes(events) == [Change.RESOLVED, Change.OPENED]
    assert "too many" in events[0].incident.resolution
    assert [one.subject.adapter for one in book.open()] == ["a1", "paged"]


def test_an_acknowledgement_is_recorded_with_what_it_asks_for():
    book = Incidents()
    opened = only(book.take(finding(), START)).incident
    done = book.acknowledge(
        opened.id, Acknowledgement("ann", "new customer", START + 1, accept_as_class=True)
    )
    assert done.incident.state is State.ACKNOWLEDGED
    assert done.incident.acknowledgement.accept_as_class
    assert book.find(opened.id) == done.incident
    assert "accept_as_class" in as_json(done.incident)["actions"]


@pytest.mark.parametrize(
    ("id_", "by", "comment"), [("nonesuch", "ann", ""), (None, "", ""), (None, "ann", "x" * 2001)]
)
def test_an_acknowledgement_that_cannot_be_is_refused_with_a_remedy(id_, by, comment):
    book = Incidents()
    opened = only(book.take(finding(), START)).incident
    with pytest.raises(ValueError, match=r"list the open ones|shorten or fill it in"):
        book.acknowledge(id_ or opened.id, Acknowledgement(by, comment, START))


def test_nobody_is_told_during_an_announced_deploy_but_of_what_outlasts_it():
    book = Incidents()
    book.announce(Window("m", START, START + 60, "new weights"), START)
    inside = only(book.take(finding(), START + 1)).incident
    assert (inside.notified, inside.maintenance) == (False, "new weights")
    assert not only(book.take(finding(copy=Copy.PAGE), START + 2)).incident.notified
    book.hear(report(Canary.STILL, START + 3), START + 3)
    assert book.tick(START + 59) == []
    after = only(book.tick(START + 60))
    assert (after.change, after.incident.notified, after.incident.id) == (Change.OPENED, True, inside.id)
    assert book.tick(START + 61) == []
    assert book.windows() == ()


def test_a_deploy_of_another_model_silences_nothing_and_one_of_every_model_does():
    book = Incidents()
    book.announce(Window("other", START, START + 60, "weights"), START)
    assert only(book.take(finding(), START + 1)).incident.notified
    book.announce(Window("", START, START + 60, "cluster"), START)
    assert not only(book.take(finding(stream(adapter="a")), START + 2)).incident.notified
    assert only(book.take(finding(), START + 20)).incident.notified, "known before the deploy"


def test_a_withdrawn_deploy_silences_nothing_more():
    book = Incidents()
    window = Window("m", START, START + 60, "weights")
    book.announce(window, START)
    book.take(finding(), START + 1)
    book.withdraw(window.id)
    assert only(book.tick(START + 2)).incident.notified
    with pytest.raises(ValueError, match="list the windows"):
        book.withdraw(window.id)


def test_windows_are_bounded_in_length_and_number():
    for length in (0.0, -5.0, LONGEST_SECONDS + 1, math.inf, math.nan):
        with pytest.raises(ValueError, match="announce a longer deploy in parts"):
            Window("m", START, START + length, "r")
    with pytest.raises(ValueError, match="give a sentence"):
        Window("m", START, START + 1, " ")
    book = Incidents()
    for i in range(MOST_WINDOWS):
        book.announce(Window("m", START, START + 1 + i, "r"), START)
    with pytest.raises(ValueError, match="withdraw one"):
        book.announce(Window("m", START, START + 500, "r"), START)
    book.announce(Window("m", START, START + 500, "r"), START + 1)  # one is over by now


OUTSIDE = stream("classes", side="outside")


def test_the_canary_is_asked_once_and_its_answer_decides():
    book = Incidents()
    first = only(book.take(finding(OUTSIDE), START))
    assert (first.ask_canary, first.incident.triage.verdict) == (True, Verdict.PENDING)
    again = only(book.take(finding(OUTSIDE), START + 15))
    assert (again.ask_canary, again.incident.triage.verdict) == (False, Verdict.PENDING)
    answered = only(book.hear(report(Canary.STILL, START + 16), START + 16))
    assert (answered.change, answered.incident.triage.verdict) == (Change.UPDATED, Verdict.TRAFFIC)
    assert book.hear(report(Canary.STILL, START + 17), START + 17) == []
    moved = only(book.hear(report(Canary.MOVED, START + 18, place="layer 5"), START + 18))
    assert (moved.incident.triage.verdict, moved.incident.layer) == (Verdict.MODEL, "layer 5")


def test_a_canary_that_does_not_answer_in_time_leaves_it_undetermined():
    book = Incidents()
    book.take(finding(OUTSIDE), START)
    assert book.tick(START + 30) == []
    late = only(book.tick(START + 31))
    assert late.incident.triage.verdict is Verdict.UNDETERMINED
    assert not late.ask_canary
    assert book.tick(START + 32) == []
    after_all = only(book.hear(report(Canary.STILL, START + 40), START + 40))
    assert after_all.incident.triage.verdict is Verdict.TRAFFIC


def test_a_canary_that_was_still_before_the_incident_says_nothing_one_that_moved_does():
    book = Incidents()
    book.hear(report(Canary.STILL, START - 1), START - 1)
    assert only(book.take(finding(OUTSIDE), START)).incident.triage.verdict is Verdict.PENDING
    book = Incidents()
    book.hear(report(Canary.MOVED, START - 100), START - 100)
    assert only(book.take(finding(OUTSIDE), START)).incident.triage.verdict is Verdict.MODEL
    book = Incidents()
    book.hear(report(Canary.MOVED, START - 121), START - 121)
    assert only(book.take(finding(OUTSIDE), START)).incident.triage.verdict is Verdict.PENDING


def test_traffic_is_said_once_every_replica_that_has_a_canary_answered():
    book = Incidents()
    for replica in ("r0", "r1"):
        book.hear(report(Canary.STILL, START - 30, replica), START - 30)
    book.take(finding(OUTSIDE), START)
    assert book.hear(report(Canary.STILL, START + 1), START + 1) == []
    second = only(book.hear(report(Canary.STILL, START + 2, "r1"), START + 2))
    assert second.incident.triage.verdict is Verdict.TRAFFIC


def test_a_replica_whose_canary_moved_alone_is_singled_out():
    book = Incidents()
    book.take(finding(OUTSIDE), START)
    book.hear(report(Canary.STILL, START + 1), START + 1)
    event = only(book.hear(report(Canary.MOVED, START + 2, "r1"), START + 2))
    assert event.incident.singled_out == ("r1",)
    assert "Only r1 is affected" in event.incident.triage.reasons[-1]


def test_the_canary_of_the_base_model_does_not_acquit_an_adapter():
    book = Incidents()
    lora = OUTSIDE._replace(adapter="lora")
    book.take(finding(lora), START)
    assert book.hear(report(Canary.STILL, START + 1), START + 1) == []
    own = only(book.hear(report(Canary.STILL, START + 2, adapter="lora"), START + 2))
    assert own.incident.triage.verdict is Verdict.TRAFFIC
    moved = only(book.hear(report(Canary.MOVED, START + 3), START + 3))
    assert moved.incident.triage.verdict is Verdict.MODEL


def test_replicas_are_those_where_it_was_seen_and_the_ones_that_differ_are_singled_out():
    seen = only(Incidents().take(finding(stream("sampler", replica="r4")), START)).incident
    assert (seen.replicas, seen.singled_out) == (("r4",), ())
    named = only(Incidents().take(finding(replicas=("r6",)), START)).incident
    assert (named.replicas, named.singled_out) == (("r6",), ())
    sick = only(Incidents().take(finding(stream("replicas", replica="r5")), START)).incident
    assert (sick.replicas, sick.singled_out) == (("r5",), ("r5",))


def test_a_finding_without_a_carrier_or_a_level_is_refused():
    for level, carriers in ((math.nan, (Carrier(stream(), 1.0),)), (1.0, ())):
        with pytest.raises(ValueError, match="say which stream raised it"):
            Finding(Alarm("m", "", 0.0, level, 1.0, carriers), Copy.TICKET)


def worked():
    """A book that has seen one of everything."""
    book = Incidents()
    book.announce(Window("other", START, START + 600, "weights"), START)
    exemplar = Exemplar("request", "a" * 32, "r0", "output.entropy", 4.5, "z")
    book.take(finding(OUTSIDE, exemplars=(exemplar,), reference="hash"), START)
    book.take(finding(stream(model="other"), copy=Copy.PAGE, replicas=("r1",), layer="layer 2"), START + 1)
    opened = only(book.take(finding(stream(adapter="a")), START + 2)).incident
    book.acknowledge(opened.id, Acknowledgement("ann", "seen", START + 3, accept_as_class=True))
    book.hear(report(Canary.MOVED, START + 4, place="embedding"), START + 4)
    book.recovered(M, START + 5)
    return book


def test_a_book_goes_on_from_its_snapshot_exactly_where_it_was():
    book, again = worked(), Incidents()
    again.restore(book.snapshot())
    assert (again.open(), again.history(), again.windows()) == (book.open(), book.history(), book.windows())
    assert again.snapshot() == book.snapshot()
    next_one = finding(OUTSIDE)
    assert again.take(next_one, START + 6) == book.take(next_one, START + 6)


@given(at=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_a_damaged_snapshot_is_refused_with_a_remedy_and_changes_nothing(at, flip):
    book = worked()
    data = bytearray(book.snapshot())
    data[at % len(data)] ^= flip
    before = book.open()
    with pytest.raises(ValueError, match="delete it"):
        book.restore(bytes(data))
    assert book.open() == before


def test_every_detector_has_an_alert_name_and_no_other_exists():
    detectors = [*SHARES, "nonfinite", "consistency", "something new"]
    assert {alertname(stream(detector)) for detector in detectors} == set(ALERTNAMES)


def test_an_alert_is_named_by_the_strongest_evidence_that_names_a_signal():
    unusual = stream("extremes", signal="", layer=-1, side="beyond all")
    far = stream("extremes", signal="class.none", layer=-1, side="beyond all")
    name = lambda *streams: only(Incidents().take(finding(*streams), START)).incident.alertname  # noqa: E731 - of this test alone
    assert name(unusual) == "IntrospanRequestsDeviate"
    assert name(unusual, far, stream()) == "IntrospanTrafficShifted"
    assert name(unusual, stream(), far) == "IntrospanRequestsDeviate"


def test_a_notice_says_everything_and_keeps_its_identity_while_the_triage_changes():
    book = Incidents()
    exemplar = Exemplar("request-1", "a" * 32, "r0", "output.entropy", 4.5, "z")
    pending = only(book.take(finding(OUTSIDE, exemplars=(exemplar,), reference="ref-1"), START)).incident
    known = only(book.hear(report(Canary.MOVED, START + 1, place="layer 5"), START + 1)).incident
    first, second = (notice(one, Links("https://docs.example/runbook.md")) for one in (pending, known))
    assert first.identity == second.identity
    assert dict(second.labels) == {
        "alertname": "IntrospanTrafficShifted",
        "model": "m",
        "severity": "warning",
    }
    said = dict(second.annotations)
    assert said["triage"] == "model or engine"
    assert said["runbook_url"] == "https://docs.example/runbook.md#introspantrafficshifted"
    assert said["dashboard_url"] == "http://localhost:3000/d/introspan-requests?var-model=m"
    assert said["page_url"] == f"http://localhost:9464/incident?id={known.id}"
    assert said["layer"] == "layer 5"
    assert said["requests"] == "request-1"
    assert said["trace_ids"] == "a" * 32
    assert said["reference"] == "ref-1"
    assert "at most one false alarm in 1 day" in said["guarantee"]
    assert (second.ended_unix_seconds, second.started_unix_seconds) == (None, START)


def test_an_alert_leads_nowhere_where_no_address_is_known_and_names_are_quoted_where_one_is():
    known = Links("r", "https://grafana/", "https://pages/introspan/").of("A", "a b/c?&", "i d")
    assert known["dashboard_url"] == "https://grafana/d/introspan-requests?var-model=a%20b%2Fc%3F%26"
    assert known["page_url"] == "https://pages/introspan/incident?id=i%20d"
    assert Links("r", "", "").of("A", "m", "i") == {"runbook_url": "r#a"}


def test_an_acknowledged_and_a_resolved_incident_say_so():
    book = Incidents()
    opened = only(book.take(finding(), START)).incident
    done = book.acknowledge(opened.id, Acknowledgement("ann", "new customer", START + 1)).incident
    assert dict(notice(done, Links("r")).annotations)["acknowledged"] == "by ann: new customer"
    ended = only(book.recovered(M, START + 9)).incident
    assert notice(ended, Links("r")).ended_unix_seconds == START + 9
    assert as_json(ended)["actions"] == []


@pytest.mark.parametrize("name", IncidentSettings.__dataclass_fields__)
def test_a_setting_that_makes_no_sense_is_refused_by_name(name):
    with pytest.raises(ValueError, match=rf"incidents\.{name} must be > 0, got 0"):
        IncidentSettings(**{name: 0})

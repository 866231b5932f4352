"""Claims on what the exporter makes of a collector's answers: refusals, parts, garbage, directives."""

import time

import grpc
import pytest

from introspan_wire.v1 import observation_service_pb2 as service_pb
from tests.integration.exporting import exporting, offer, until
from tests.integration.scripted_collector import ScriptedCollector, refuse, reply


def test_pressure_with_a_delay_is_obeyed_and_the_same_bytes_are_sent_again():
    with (
        ScriptedCollector(refuse(grpc.StatusCode.UNAVAILABLE, 0.7)) as collector,
        exporting(collector.port) as exporter,
    ):
        offer(exporter, 3)
        until(lambda: len(collector.received) == 2)
        assert collector.received[0] == collector.received[1]
        assert collector.times[1] - collector.times[0] >= 0.7
        assert exporter.drops == {}


def test_a_delay_beyond_the_deadline_drops_the_batch_and_silences_the_producer_meanwhile():
    answer = refuse(grpc.StatusCode.UNAVAILABLE, 2.0)
    with (
        ScriptedCollector(answer) as collector,
        exporting(collector.port, environ={"INTROSPAN_TIMEOUT": "0.5"}) as exporter,
    ):
        offer(exporter, 1_000)
        until(lambda: len(collector.received) == 1)
        busy_seconds = time.process_time()
        until(lambda: len(collector.received) > 1)
        assert time.process_time() - busy_seconds < 0.5
        assert collector.times[1] - collector.times[0] >= 2.0
        until(lambda: len(collector.segments()) == 1_000)
        refused = sum(table.segment_count for table in collector.requests[0].tables)
        assert exporter.drops == {"unavailable": refused}


@pytest.mark.parametrize(
    "code", ["CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"]
)
def test_a_passing_failure_is_tried_again(code):
    with ScriptedCollector(refuse(grpc.StatusCode[code])) as collector, exporting(collector.port) as exporter:
        offer(exporter, 2)
        until(lambda: len(collector.received) == 2)
        assert collector.received[0] == collector.received[1]
        assert exporter.drops == {}


@pytest.mark.parametrize(
    "code",
    [
        "INVALID_ARGUMENT",
        "UNIMPLEMENTED",
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "INTERNAL",
    ],
)
def test_a_permanent_failure_is_dropped_counted_and_not_tried_again(code):
    with ScriptedCollector(refuse(grpc.StatusCode[code])) as collector, exporting(collector.port) as exporter:
        offer(exporter, 2)
        until(lambda: exporter.drops == {code.lower(): 2})
        offer(exporter, 1, first=2)
        until(lambda: len(collector.received) == 2)
        assert [request.sequence for request in collector.requests] == [1, 2]


def test_exhausted_resources_are_tried_again_only_when_the_collector_says_when():
    answer = refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, 0.1)
    with ScriptedCollector(answer) as collector, exporting(collector.port) as exporter:
        offer(exporter, 2)
        until(lambda: len(collector.received) == 2)
        assert collector.received[0] == collector.received[1]
        assert exporter.drops == {}


def test_a_partial_success_is_counted_and_never_sent_again():
    partial = service_pb.ExportObservationsPartialSuccess(rejected_segments=2, error_message="values: wrong")
    with (
        ScriptedCollector(reply(partial_success=partial)) as collector,
        exporting(collector.port) as exporter,
    ):
        offer(exporter, 5)
        until(lambda: exporter.drops == {"rejected": 2})
        time.sleep(1.2)
        assert len(collector.received) == 1


def test_a_reply_of_garbage_is_counted_and_the_next_batch_goes_out():
    with (
        ScriptedCollector(lambda *_: b"\xff\xff garbage") as collector,
        exporting(collector.port) as exporter,
    ):
        offer(exporter, 2)
        until(lambda: exporter.drops == {"bad_reply": 2})
        offer(exporter, 1, first=2)
        until(lambda: len(collector.received) == 2)
        assert exporter.drops == {"bad_reply": 2}


def test_a_reply_too_large_to_be_a_collectors_is_dropped_and_counted():
    with ScriptedCollector(lambda *_: bytes(1_000_000)) as collector, exporting(collector.port) as exporter:
        offer(exporter, 2)
        until(lambda: exporter.drops == {"resource_exhausted": 2})


def test_directives_only_ever_lower():
    told: list[tuple[float | None, bool]] = []
    bounds = [1.0, 0.5, 0.8, float("nan"), 0.2, -1.0]
    answers = [reply(directives=service_pb.Directives(max_sampling_probability=bound)) for bound in bounds]
    answers.insert(3, reply(directives=service_pb.Directives(capture_off=True)))
    with ScriptedCollector(*answers) as collector, exporting(collector.port, told=told) as exporter:
        for i in range(len(answers) + 1):
            offer(exporter, 1, first=i)
            until(lambda i=i: len(collector.received) == i + 1)
        until(lambda: len(told) == 4)
        assert told == [(0.5, False), (0.5, True), (0.2, True), (0.0, True)]


def test_a_remark_of_the_collector_about_a_batch_that_it_took_is_logged_once_and_nothing_is_dropped(caplog):
    remark = service_pb.ExportObservationsPartialSuccess(error_message="2 not in this collector's catalogue")
    with (
        ScriptedCollector(*[reply(partial_success=remark)] * 3) as collector,
        exporting(collector.port) as exporter,
    ):
        for number in range(3):
            offer(exporter, 1, first=number)
            until(lambda number=number: len(collector.received) == number + 1)
        until(lambda: "2 not in this collector's catalogue" in caplog.text)
        assert exporter.drops == {}
    assert caplog.text.count("2 not in this collector's catalogue") == 1

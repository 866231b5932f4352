"""Claims on what the exporter tells the collector of the worker it runs in, and when."""

import time

from introspan.export.exporter import TICK_SECONDS
from introspan.observation import CaptureStatus, Disabled
from introspan_wire.v1 import observation_service_pb2 as service_pb
from tests.integration.exporting import LOADED_MACHINE_SECONDS, exporting, offer, until
from tests.integration.scripted_collector import ScriptedCollector, reply


def test_the_next_message_says_what_was_dropped():
    before = CaptureStatus(dropped_requests={"table_full": 7}, dropped_rows={"discarded": 1})
    partial = service_pb.ExportObservationsPartialSuccess(rejected_segments=2)
    with (
        ScriptedCollector(reply(partial_success=partial)) as collector,
        exporting(collector.port, status=lambda: before) as exporter,
    ):
        offer(exporter, 5)
        until(lambda: len(collector.received) == 1)
        offer(exporter, 1, first=5)
        until(lambda: len(collector.received) == 2)
        told = collector.requests[1].status.drops
        assert {drop.reason: (drop.segments, drop.requests, drop.rows) for drop in told} == {
            "rejected": (2, 0, 0),
            "table_full": (0, 7, 0),
            "discarded": (0, 0, 1),
        }


def test_what_begins_is_sent_at_once_and_with_it_what_waited():
    with (
        ScriptedCollector() as collector,
        exporting(collector.port, tick_seconds=600.0) as exporter,
    ):
        exporter.start()
        exporter.hurry()
        until(lambda: len(collector.received) == 1)
        offer(exporter, 3)
        time.sleep(0.3)
        assert len(collector.received) == 1
        exporter.hurry()
        until(lambda: len(collector.received) == 2)
        assert sum(table.segment_count for table in collector.requests[1].tables) == 3


def test_a_status_alone_is_sent_at_the_start_and_every_ten_seconds_and_no_oftener():
    ahead_seconds = [0.0]
    with (
        ScriptedCollector() as collector,
        exporting(collector.port, clock=lambda: time.monotonic() + ahead_seconds[0]) as exporter,
    ):
        exporter.start()
        for beat in (1, 2, 3):
            until(lambda beat=beat: len(collector.received) == beat)
            ahead_seconds[0] += 9
            time.sleep(0.3)
            assert len(collector.received) == beat
            ahead_seconds[0] += 1
        assert all(not request.tables and request.HasField("status") for request in collector.requests)


def test_a_signal_that_switches_off_is_told_within_a_second():
    status = [CaptureStatus(measured_rows=3)]
    with (
        ScriptedCollector() as collector,
        exporting(collector.port, status=lambda: status[0], tick_seconds=TICK_SECONDS) as exporter,
    ):
        exporter.start()
        until(lambda: len(collector.received) == 1)
        disabled = Disabled("attention", "self_check_failed", "layer 3 differs")
        status[0] = CaptureStatus(measured_rows=4, disabled=(disabled,))
        until(lambda: len(collector.received) == 2, within_seconds=1.0 + LOADED_MACHINE_SECONDS)
        sent = collector.requests[1].status
        assert (sent.measured_rows, sent.disabled[0].signal, sent.disabled[0].reason) == (
            4,
            "attention",
            "self_check_failed",
        )
        time.sleep(1.2)
        assert len(collector.received) == 2


def test_a_message_says_how_old_the_oldest_is_that_waited_and_an_empty_one_that_nothing_did():
    def three_seconds_later():
        return 1_800_000_003_000_000_000

    with (
        ScriptedCollector() as collector,
        exporting(collector.port, clock_unix_nano=three_seconds_later) as exporter,
    ):
        exporter.start()
        until(lambda: len(collector.requests) == 1)
        offer(exporter, 2)
        until(lambda: len(collector.requests) == 2)
    assert [request.status.queue_age_seconds for request in collector.requests[:2]] == [0.0, 3.0]

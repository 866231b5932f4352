"""Claims on what the exporter delivers to a collector that takes everything: all of it, once, in frames."""

import threading
import time
from collections import Counter

import numpy as np

from introspan.export.exporter import TICK_SECONDS
from introspan.observation import CaptureStatus
from introspan_wire.codec import Column, Schema, decode_table
from introspan_wire.signals import Kind, Statistic
from tests.integration.exporting import LOADED_MACHINE_SECONDS, PROMPT, exporting, observation, offer, until
from tests.integration.scripted_collector import ScriptedCollector


def test_what_is_offered_arrives_once_in_order_and_unchanged():
    with ScriptedCollector() as collector, exporting(collector.port) as exporter:
        offered = [observation(request, segment) for segment in range(5) for request in range(200)]
        for one in offered:
            exporter.offer(one)
        until(lambda: len(collector.segments()) == len(offered))
        assert sorted(collector.segments()) == sorted((o.request_id, o.segment_index) for o in offered)
        for request in range(200):
            assert [s for r, s in collector.segments() if r == f"cmpl-{request}"] == [0, 1, 2, 3, 4]
        by_key = {(o.request_id, o.segment_index): o for o in offered}
        for message in collector.requests:
            assert message.resource.model_fingerprint == "f" * 64
            for table in map(decode_table, message.tables):
                for row, request_id in enumerate(table.request_id):
                    one = by_key[request_id, int(table.segment_index[row])]
                    np.testing.assert_array_equal(table.values[row], one.values)
                    assert (table.trace_id[row].tobytes(), table.span_id[row].tobytes()) == (
                        one.trace_id,
                        one.span_id,
                    )
                    assert (int(table.cluster_key[row]), table.adapter[row]) == (one.cluster_key, one.adapter)
                    assert int(table.time_unix_nano[row]) == one.time_unix_nano
        assert [m.sequence for m in collector.requests] == list(range(1, len(collector.received) + 1))
        assert exporter.drops == {}


def test_frames_are_at_most_64_kib_and_sent_within_a_second():
    with ScriptedCollector() as collector, exporting(collector.port, tick_seconds=TICK_SECONDS) as exporter:
        exporter.start()
        until(lambda: len(collector.received) == 1)
        offered_at = time.monotonic()
        offer(exporter, 1)
        until(lambda: len(collector.received) == 2)
        assert collector.times[1] - offered_at <= 1.0 + LOADED_MACHINE_SECONDS
        offer(exporter, 2_000)
        until(lambda: len(collector.segments()) == 2_001)
        assert max(map(len, collector.received)) <= 64 * 1024
        assert len(collector.received) > 5


def test_an_observation_larger_than_a_frame_goes_alone():
    wide = Schema(
        Kind.DECODED, tuple(Column("attention.entropy", Statistic.MEAN, 0, h) for h in range(16_000))
    )
    with ScriptedCollector() as collector, exporting(collector.port) as exporter:
        exporter.offer(observation(0, 0))
        exporter.offer(observation(0, 1, schema=wide))
        exporter.offer(observation(0, 2))
        until(lambda: len(collector.segments()) == 3)
        assert [sum(t.segment_count for t in m.tables) for m in collector.requests] == [1, 1, 1]
        assert collector.segments() == [("cmpl-0", 0), ("cmpl-0", 1), ("cmpl-0", 2)]


def test_nothing_runs_before_the_first_offer_and_one_daemon_thread_after():
    before = set(threading.enumerate())
    with ScriptedCollector() as collector, exporting(collector.port) as exporter:
        servers = set(threading.enumerate())
        assert not [t for t in servers - before if t.name == "introspan-export"]
        offer(exporter, 10)
        until(lambda: len(collector.received) == 1)
        ours = [t for t in threading.enumerate() if t.name == "introspan-export"]
        assert len(ours) == 1
        assert ours[0].daemon
    assert not [t for t in threading.enumerate() if t.name == "introspan-export"]


def test_headers_compression_and_sdk_version_reach_the_collector():
    environ = {"INTROSPAN_HEADERS": "authorization=Bearer%20x", "INTROSPAN_COMPRESSION": "gzip"}
    with ScriptedCollector() as collector, exporting(collector.port, environ=environ) as exporter:
        offer(exporter, 100)
        until(lambda: len(collector.segments()) == 100)
        assert collector.metadata[0]["authorization"] == "Bearer x"
        assert collector.metadata[0]["user-agent"].startswith("introspan/0.1.0")


def test_an_error_of_our_own_is_contained_and_the_data_goes_out_later():
    calls = Counter[str]()

    def status() -> CaptureStatus:
        calls["status"] += 1
        if calls["status"] <= 2:
            raise RuntimeError("scripted")
        return CaptureStatus()

    with ScriptedCollector() as collector, exporting(collector.port, status=status) as exporter:
        offer(exporter, 5)
        until(lambda: len(collector.segments()) == 5)
        assert exporter.drops == {}


def test_a_row_that_does_not_fit_its_schema_costs_its_frame_and_no_more():
    with ScriptedCollector() as collector, exporting(collector.port) as exporter:
        exporter.offer(observation(0, 0, schema=Schema(Kind.PROMPT, PROMPT.columns[:3])))
        broken = observation(1, 0)
        object.__setattr__(broken, "values", np.zeros(7, np.float32))
        exporter.offer(broken)
        until(lambda: exporter.drops == {"internal_error": 2})
        offer(exporter, 1, first=2)
        until(lambda: collector.segments() == [("cmpl-2", 0)])

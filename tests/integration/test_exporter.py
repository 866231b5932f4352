"""Claims on the exporter against real gRPC servers that answer well, badly, late or not at all."""

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Self

import grpc
import numpy as np
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from introspan.config import load
from introspan.export import Exporter
from introspan.export.backoff import Backoff
from introspan.export.exporter import TICK_SECONDS
from introspan.observation import CaptureStatus, Disabled, Observation, Resource
from introspan_wire.codec import Column, Schema, decode_table
from introspan_wire.signals import Kind, Statistic
from introspan_wire.v1 import observation_service_pb2 as service_pb

PROMPT = Schema(Kind.PROMPT, tuple(Column("residual.log_rms", Statistic.LAST, layer) for layer in range(50)))
DECODED = Schema(
    Kind.DECODED, tuple(Column("residual.log_rms", Statistic.MEAN, layer) for layer in range(60))
)
RESOURCE = Resource("chat", "r0", "tiny", "f" * 64, "vllm", "0.32.0", "float32", 50, 1, "0.1.0")
LOADED_MACHINE_SECONDS = 0.25  # by which a busy machine may wake a thread later than asked
OK = service_pb.ExportObservationsResponse().SerializeToString()


def observation(request: int, segment: int, *, schema: Schema | None = None) -> Observation:
    schema = schema or (DECODED if segment else PROMPT)
    return Observation(
        schema,
        f"cmpl-{request}",
        bytes(range(16)),
        bytes(range(8)),
        2**64 - 1 - request,
        "lora" if request % 2 else "",
        segment,
        10 * segment,
        10,
        9,
        10,
        0,
        1_800_000_000_000_000_000 + segment,
        0.5,
        np.full(len(schema.columns), request + segment / 1000, np.float32),
    )


def offer(exporter: Exporter, count: int, *, first: int = 0) -> None:
    for i in range(first, first + count):
        exporter.offer(observation(i, 0))


class Collector:
    """A real server whose answers are scripted: each is called with (bytes, context) and gives bytes."""

    def __init__(self, *answers: Callable[[bytes, grpc.ServicerContext], bytes], port: int = 0) -> None:
        self.received: list[bytes] = []
        self.metadata: list[dict[str, str]] = []
        self.times: list[float] = []
        self._answers = list(answers)
        self._port = port

    def __enter__(self) -> Self:
        self._server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        handler = grpc.unary_unary_rpc_method_handler(self._answer)
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "introspan_wire.v1.ObservationService", {"ExportObservations": handler}
                ),
            )
        )
        self.port = self._bind()
        self._server.start()
        return self

    def _bind(self) -> int:
        return self._server.add_insecure_port(f"127.0.0.1:{self._port}")

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()

    def _answer(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        self.times.append(time.monotonic())
        self.metadata.append(dict(context.invocation_metadata()))
        self.received.append(data)
        return self._answers.pop(0)(data, context) if self._answers else OK

    @property
    def requests(self) -> list[service_pb.ExportObservationsRequest]:
        return [service_pb.ExportObservationsRequest.FromString(data) for data in self.received]

    def segments(self) -> list[tuple[str, int]]:
        """(request id, segment index) of every row of distinct batches, in order of arrival."""
        batches = {(request.producer_id, request.sequence): request for request in self.requests}
        return [
            row
            for request in batches.values()
            for table in request.tables
            for row in zip(table.request_id, table.segment_index, strict=True)
        ]


def refuse(code: grpc.StatusCode, retry_seconds: float | None = None) -> Callable[..., bytes]:
    def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
        if retry_seconds is not None:
            info = error_details_pb2.RetryInfo()
            info.retry_delay.FromNanoseconds(int(retry_seconds * 1e9))
            status = status_pb2.Status(code=code_pb2.Code.Value(code.name))
            status.details.add().Pack(info)
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(code, "scripted")
        raise AssertionError("abort raises")

    return answer


def reply(**fields: object) -> Callable[..., bytes]:
    return lambda _data, _context: service_pb.ExportObservationsResponse(**fields).SerializeToString()


@contextmanager
def exporting(port: int, *, status=CaptureStatus, told=None, environ=None, **kwargs):
    settings = load({"INTROSPAN_ENDPOINT": f"127.0.0.1:{port}", **(environ or {})})
    told = [] if told is None else told
    kwargs.setdefault("rng", random.Random(0))
    kwargs.setdefault("tick_seconds", 0.05)
    kwargs.setdefault("backoff", Backoff(first_seconds=0.05, longest_seconds=0.2))
    exporter = Exporter(settings, RESOURCE, status, lambda *directives: told.append(directives), **kwargs)
    try:
        yield exporter
    finally:
        exporter.close()


def until(claim: Callable[[], bool], seconds: float = 5.0) -> None:
    ends = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < ends, "did not come true in time"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_what_is_offered_arrives_once_in_order_and_unchanged():
    with Collector() as collector, exporting(collector.port) as exporter:
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
    with Collector() as collector, exporting(collector.port, tick_seconds=TICK_SECONDS) as exporter:
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
    with Collector() as collector, exporting(collector.port) as exporter:
        exporter.offer(observation(0, 0))
        exporter.offer(observation(0, 1, schema=wide))
        exporter.offer(observation(0, 2))
        until(lambda: len(collector.segments()) == 3)
        assert [sum(t.segment_count for t in m.tables) for m in collector.requests] == [1, 1, 1]
        assert collector.segments() == [("cmpl-0", 0), ("cmpl-0", 1), ("cmpl-0", 2)]


def test_pressure_with_a_delay_is_obeyed_and_the_same_bytes_are_sent_again():
    with (
        Collector(refuse(grpc.StatusCode.UNAVAILABLE, 0.7)) as collector,
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
        Collector(answer) as collector,
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
    with Collector(refuse(grpc.StatusCode[code])) as collector, exporting(collector.port) as exporter:
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
    with Collector(refuse(grpc.StatusCode[code])) as collector, exporting(collector.port) as exporter:
        offer(exporter, 2)
        until(lambda: exporter.drops == {code.lower(): 2})
        offer(exporter, 1, first=2)
        until(lambda: len(collector.received) == 2)
        assert [request.sequence for request in collector.requests] == [1, 2]


def test_exhausted_resources_are_tried_again_only_when_the_collector_says_when():
    answer = refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, 0.1)
    with Collector(answer) as collector, exporting(collector.port) as exporter:
        offer(exporter, 2)
        until(lambda: len(collector.received) == 2)
        assert collector.received[0] == collector.received[1]
        assert exporter.drops == {}


def test_a_partial_success_is_counted_and_never_sent_again():
    partial = service_pb.ExportObservationsPartialSuccess(rejected_segments=2, error_message="values: wrong")
    with Collector(reply(partial_success=partial)) as collector, exporting(collector.port) as exporter:
        offer(exporter, 5)
        until(lambda: exporter.drops == {"rejected": 2})
        time.sleep(1.2)
        assert len(collector.received) == 1


def test_the_next_message_says_what_was_dropped():
    before = CaptureStatus(drops={"row_budget": 7, "rejected": 1})
    partial = service_pb.ExportObservationsPartialSuccess(rejected_segments=2)
    with (
        Collector(reply(partial_success=partial)) as collector,
        exporting(collector.port, status=lambda: before) as exporter,
    ):
        offer(exporter, 5)
        until(lambda: len(collector.received) == 1)
        offer(exporter, 1, first=5)
        until(lambda: len(collector.received) == 2)
        drops = {drop.reason: drop.segments for drop in collector.requests[1].status.drops}
        assert drops == {"row_budget": 7, "rejected": 3}


def test_a_reply_of_garbage_is_counted_and_the_next_batch_goes_out():
    with Collector(lambda *_: b"\xff\xff garbage") as collector, exporting(collector.port) as exporter:
        offer(exporter, 2)
        until(lambda: exporter.drops == {"bad_reply": 2})
        offer(exporter, 1, first=2)
        until(lambda: len(collector.received) == 2)
        assert exporter.drops == {"bad_reply": 2}


def test_a_reply_too_large_to_be_a_collectors_is_dropped_and_counted():
    with Collector(lambda *_: bytes(1_000_000)) as collector, exporting(collector.port) as exporter:
        offer(exporter, 2)
        until(lambda: exporter.drops == {"resource_exhausted": 2})


def test_a_peer_that_speaks_no_grpc_is_survived():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(100))

        threading.Thread(target=babble, daemon=True).start()
        with exporting(server.getsockname()[1], environ={"INTROSPAN_TIMEOUT": "0.5"}) as exporter:
            offer(exporter, 2)
            until(lambda: sum(exporter.drops.values()) == 2)
            assert set(exporter.drops) <= {"unavailable", "internal", "unknown"}
        server.shutdown(socket.SHUT_RDWR)


def test_an_absent_collector_costs_what_the_deadline_gives_up_and_is_found_when_it_comes():
    port = free_port()
    with exporting(port, environ={"INTROSPAN_TIMEOUT": "0.5"}) as exporter:
        offer(exporter, 2)
        until(lambda: exporter.drops == {"unavailable": 2})
        with Collector(port=port) as collector:
            offer(exporter, 1, first=2)

            def comes() -> bool:
                time.sleep(0.1)
                offer(exporter, 1, first=3)
                return bool(collector.received)

            until(comes, seconds=15)


def test_a_restart_of_the_collector_loses_nothing():
    with Collector() as first, exporting(first.port, environ={"INTROSPAN_TIMEOUT": "30"}) as exporter:
        offer(exporter, 3)
        until(lambda: len(first.segments()) == 3)
        port = first.port
        first.__exit__()
        offer(exporter, 3, first=3)
        time.sleep(1.5)
        with Collector(port=port) as second:
            until(lambda: len(second.segments()) == 3, seconds=15)
            assert exporter.drops == {}
            exporter.close()


def test_offering_stays_fast_while_the_collector_hangs_and_a_full_queue_drops_the_oldest():
    release = threading.Event()
    hang = [lambda *_: (release.wait(30) and OK) or OK]
    environ = {"INTROSPAN_QUEUE_BYTES": "1MiB", "INTROSPAN_TIMEOUT": "20"}
    with Collector(*hang) as collector, exporting(collector.port, environ=environ) as exporter:
        offer(exporter, 1)
        until(lambda: len(collector.received) == 1)
        observations = [observation(i, 0) for i in range(1, 20_001)]
        seconds = np.empty(len(observations))
        for i, one in enumerate(observations):
            begin = time.perf_counter()
            exporter.offer(one)
            seconds[i] = time.perf_counter() - begin
        p50, p999 = np.quantile(seconds, [0.5, 0.999])
        assert p50 < 20e-6
        assert p999 < 500e-6
        dropped = exporter.drops["queue_full"]
        release.set()
        until(lambda: len(collector.segments()) == 20_001 - dropped, seconds=10)
        kept = [int(request.removeprefix("cmpl-")) for request, _ in collector.segments()[1:]]
        assert kept == list(range(20_001 - len(kept), 20_001))
        assert len(kept) * (50 * 4 + 1024) <= 2**20
        assert exporter.drops == {"queue_full": 20_000 - len(kept)}


def test_shutdown_sends_what_waits():
    with Collector() as collector, exporting(collector.port, tick_seconds=TICK_SECONDS) as exporter:
        offer(exporter, 500)
        begin = time.monotonic()
        exporter.close()
        assert time.monotonic() - begin < 2.0
        assert len(collector.segments()) == 500
        exporter.offer(observation(0, 0))
        assert exporter.drops == {"shutdown": 1}


@pytest.mark.parametrize("timeout_seconds", [0.5, 2.0])
def test_shutdown_gives_up_on_a_hung_collector_in_time_and_counts_what_it_left(timeout_seconds):
    release = threading.Event()
    with (
        Collector(*[lambda *_: (release.wait(30) and OK) or OK] * 9) as collector,
        exporting(collector.port) as exporter,
    ):
        offer(exporter, 1_000)
        until(lambda: len(collector.received) == 1)
        begin = time.monotonic()
        exporter.close(timeout_seconds)
        assert time.monotonic() - begin < timeout_seconds + LOADED_MACHINE_SECONDS
        until(lambda: exporter.drops == {"shutdown": 1_000}, seconds=1)
        assert "introspan-export" not in {thread.name for thread in threading.enumerate()}
        release.set()


def test_shutdown_without_a_collector_ends_in_time():
    with exporting(free_port()) as exporter:
        offer(exporter, 10)
        time.sleep(1.2)
        begin = time.monotonic()
        exporter.close()
        assert time.monotonic() - begin < 2.0 + LOADED_MACHINE_SECONDS
        assert exporter.drops == {"shutdown": 10}


def test_nothing_runs_before_the_first_offer_and_one_daemon_thread_after():
    before = set(threading.enumerate())
    with Collector() as collector, exporting(collector.port) as exporter:
        servers = set(threading.enumerate())
        assert not [t for t in servers - before if t.name == "introspan-export"]
        offer(exporter, 10)
        until(lambda: len(collector.received) == 1)
        ours = [t for t in threading.enumerate() if t.name == "introspan-export"]
        assert len(ours) == 1
        assert ours[0].daemon
    assert not [t for t in threading.enumerate() if t.name == "introspan-export"]


def test_a_status_alone_is_sent_at_the_start_and_every_ten_seconds_and_no_oftener():
    ahead_seconds = [0.0]
    with (
        Collector() as collector,
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
        Collector() as collector,
        exporting(collector.port, status=lambda: status[0], tick_seconds=TICK_SECONDS) as exporter,
    ):
        exporter.start()
        until(lambda: len(collector.received) == 1)
        disabled = Disabled("attention", "self_check_failed", "layer 3 differs")
        status[0] = CaptureStatus(measured_rows=4, disabled=(disabled,))
        until(lambda: len(collector.received) == 2, seconds=1.0 + LOADED_MACHINE_SECONDS)
        sent = collector.requests[1].status
        assert (sent.measured_rows, sent.disabled[0].signal, sent.disabled[0].reason) == (
            4,
            "attention",
            "self_check_failed",
        )
        time.sleep(1.2)
        assert len(collector.received) == 2


def test_directives_only_ever_lower():
    told: list[tuple[float | None, bool]] = []
    bounds = [1.0, 0.5, 0.8, float("nan"), 0.2, -1.0]
    answers = [reply(directives=service_pb.Directives(max_sampling_probability=bound)) for bound in bounds]
    answers.insert(3, reply(directives=service_pb.Directives(capture_off=True)))
    with Collector(*answers) as collector, exporting(collector.port, told=told) as exporter:
        for i in range(len(answers) + 1):
            offer(exporter, 1, first=i)
            until(lambda i=i: len(collector.received) == i + 1)
        until(lambda: len(told) == 4)
        assert told == [(0.5, False), (0.5, True), (0.2, True), (0.0, True)]


def test_an_error_of_our_own_is_contained_and_the_data_goes_out_later():
    calls = Counter[str]()

    def status() -> CaptureStatus:
        calls["status"] += 1
        if calls["status"] <= 2:
            raise RuntimeError("scripted")
        return CaptureStatus()

    with Collector() as collector, exporting(collector.port, status=status) as exporter:
        offer(exporter, 5)
        until(lambda: len(collector.segments()) == 5)
        assert exporter.drops == {}


def test_a_row_that_does_not_fit_its_schema_costs_its_frame_and_no_more():
    with Collector() as collector, exporting(collector.port) as exporter:
        exporter.offer(observation(0, 0, schema=Schema(Kind.PROMPT, PROMPT.columns[:3])))
        broken = observation(1, 0)
        object.__setattr__(broken, "values", np.zeros(7, np.float32))
        exporter.offer(broken)
        until(lambda: exporter.drops == {"internal_error": 2})
        offer(exporter, 1, first=2)
        until(lambda: collector.segments() == [("cmpl-2", 0)])


def test_headers_compression_and_sdk_version_reach_the_collector():
    environ = {"INTROSPAN_HEADERS": "authorization=Bearer%20x", "INTROSPAN_COMPRESSION": "gzip"}
    with Collector() as collector, exporting(collector.port, environ=environ) as exporter:
        offer(exporter, 100)
        until(lambda: len(collector.segments()) == 100)
        assert collector.metadata[0]["authorization"] == "Bearer x"
        assert collector.metadata[0]["user-agent"].startswith("introspan/0.1.0")

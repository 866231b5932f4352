"""A real collector and what it answers: to good batches, to bad ones, under pressure, and while it drains."""

import resource
import signal
import socket
import threading
import time

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench import fleet
from introspan_wire import codec
from introspan_wire.signals import Kind, Statistic
from introspan_wire.v1 import observation_pb2 as pb
from introspan_wire.v1 import observation_service_pb2 as service_pb
from introspan_wire.v1 import observation_service_pb2_grpc as service_grpc
from tests.collector import Collector

METHOD = "/introspan_wire.v1.ObservationService/ExportObservations"
SHAPE = fleet.Shape(residual_layers=(0, 2), attention_layers=(0,), projection_layers=(), heads=2)
ENTROPY_COUNT = "introspan_output_entropy_nats_count"
DAY_NANO = 86_400 * 10**9


@pytest.fixture
def make_collector(tmp_path, free_port):
    made = []

    def make(config=""):
        made.append(Collector(tmp_path, free_port, config))
        made[-1].start()
        return made[-1]

    yield make
    for collector in made:
        collector.stop()


def a_request(sequence=1, producer=b"p" * 16, rows=4, columns=None):
    schema = fleet.schema(SHAPE) if columns is None else codec.Schema(Kind.DECODED, columns)
    table = fleet.table(fleet.schema(SHAPE), rows, np.random.default_rng(1), time_unix_nano=time.time_ns())
    if columns is not None:
        values = np.ones((rows, len(columns)), np.float32)
        table = codec.SegmentTable(
            **{name: getattr(table, name) for name in table.__slots__} | {"schema": schema, "values": values}
        )
    return service_pb.ExportObservationsRequest(
        resource=pb.Resource(model_name="model", replica="replica-0", layer_count=32, head_count=2),
        producer_id=producer,
        sequence=sequence,
        tables=[codec.encode_table(table)],
    )


def export(collector, request, **options):
    with grpc.insecure_channel(collector.grpc) as channel:
        return service_grpc.ObservationServiceStub(channel).ExportObservations(request, timeout=20, **options)


def export_raw(collector, raw):
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(collector.grpc, options) as channel:
        return channel.unary_unary(METHOD)(raw, timeout=60)


def refusal(call, *arguments, **options):
    with pytest.raises(grpc.RpcError) as error:
        call(*arguments, **options)
    return error.value.code(), error.value.details(), dict(error.value.trailing_metadata())


def retry_seconds(metadata):
    retry = RetryInfo()
    assert Status.FromString(metadata["grpc-status-details-bin"]).details[0].Unpack(retry)
    return retry.retry_delay.ToMilliseconds() / 1e3


def refused(collector, reason):
    return collector.metric("introspan_collector_refused_batches_total", reason=reason)


def test_bad_batches_get_an_answer_that_names_the_field_and_good_ones_go_on(make_collector):
    collector = make_collector()
    whole = a_request().SerializeToString()
    code, details, _ = refusal(export_raw, collector, whole[:-30])
    assert (code, "does not parse" in details) == (grpc.StatusCode.INVALID_ARGUMENT, True)

    wrong_columns = a_request()
    wrong_columns.tables[0].values = wrong_columns.tables[0].values[:-4]
    code, details, _ = refusal(export, collector, wrong_columns)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith("tables.values must have ")

    nameless = a_request()
    nameless.resource.model_name = ""
    code, details, _ = refusal(export, collector, nameless)
    assert (code, details.split()[0]) == (grpc.StatusCode.INVALID_ARGUMENT, "resource.model_name")

    code, details, _ = refusal(export, collector, a_request(sequence=0))
    assert (code, details) == (grpc.StatusCode.INVALID_ARGUMENT, "sequence must count from 1, got 0")

    beyond = a_request(columns=(codec.Column("residual.log_rms", Statistic.MEAN, 33),))
    code, details, _ = refusal(export, collector, beyond)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert details == "tables.columns.layer of residual.log_rms must be below 33 for this resource, got 33"

    for size_bytes in (5 * 2**20, 15 * 2**20):
        code, details, _ = refusal(export_raw, collector, bytes(size_bytes))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert details == f"request must be at most 4194304 bytes, got {size_bytes}; split the batch"

    assert refused(collector, "malformed") == 7
    assert not export(collector, a_request()).HasField("partial_success")
    collector.wait_processed()
    assert collector.metric(ENTROPY_COUNT) == 4


def test_a_message_of_100_mb_is_refused_unread_and_counted_and_costs_no_memory(make_collector):
    collector = make_collector()
    export(collector, a_request())
    before = collector.resident_bytes()
    code, details, _ = refusal(export_raw, collector, bytes(100 * 2**20))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in details
    assert collector.resident_bytes() < before + 50 * 2**20
    assert refused(collector, "unread") == 1
    export(collector, a_request(2))


def test_of_a_newer_sdks_batch_what_is_known_is_taken_and_the_rest_rejected_by_number(make_collector):
    collector = make_collector()
    newer = a_request()
    newer.tables.add().CopyFrom(newer.tables[0])
    newer.tables[0].kind = 77
    told = export(collector, newer).partial_success
    assert told.rejected_segments == newer.tables[0].segment_count
    assert told.error_message.startswith("tables.kind: ")
    collector.wait_processed()
    assert collector.metric(ENTROPY_COUNT) == 4
    assert collector.metric("introspan_collector_rejected_segments_total") == told.rejected_segments
    assert collector.metric("introspan_collector_dropped_batches_total", reason="undecodable") == 0


def test_a_batch_sent_again_is_answered_the_same_and_counted_once_even_after_a_restart(make_collector):
    collector = make_collector("[accept]\nmax_sampling_probability = 0.25\n")
    first = export(collector, a_request())
    assert first.directives.max_sampling_probability == 0.25
    assert export(collector, a_request()) == first
    collector.wait_processed()
    assert collector.metric(ENTROPY_COUNT) == 4
    assert collector.metric("introspan_collector_duplicate_batches_total") == 1
    assert collector.stop() == 0
    collector.start()
    assert export(collector, a_request()) == first
    export(collector, a_request(2))
    collector.wait_processed()
    assert collector.metric(ENTROPY_COUNT) == 8


def test_a_batch_sent_many_times_at_once_is_counted_once(make_collector):
    collector = make_collector()
    request = a_request()
    senders = [threading.Thread(target=export, args=(collector, request)) for _ in range(12)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    collector.wait_processed()
    assert collector.metric(ENTROPY_COUNT) == 4
    assert collector.metric("introspan_collector_duplicate_batches_total") == 11


def test_unknown_signals_are_left_out_and_the_rest_of_the_batch_is_kept(make_collector):
    collector = make_collector()
    columns = (
        codec.Column("output.entropy", Statistic.MEAN),
        codec.Column("future.signal", Statistic.MEAN, 1),
    )
    answer = export(collector, a_request(columns=columns))
    assert answer.partial_success.rejected_segments == 0
    assert "future.signal" in answer.partial_success.error_message
    collector.wait_processed()
    assert collector.metric(ENTROPY_COUNT) == 4
    assert collector.metric("introspan_collector_unknown_columns_total") == 1


@pytest.mark.parametrize("days", [-2, 2])
def test_a_clock_days_off_is_remarked_on_and_the_time_of_receipt_is_used(make_collector, days):
    collector = make_collector()
    request = a_request()
    request.tables[0].time_unix_nano[:] = [time.time_ns() + days * DAY_NANO] * 4
    answer = export(collector, request)
    assert answer.partial_success.rejected_segments == 0
    assert "4 segments are more than a day off" in answer.partial_success.error_message
    collector.wait_processed()
    assert collector.metric("introspan_collector_skewed_segments_total") == 4
    assert collector.metric(ENTROPY_COUNT) == 4


def test_a_full_disk_is_answered_unavailable_and_forgotten_once_there_is_space(make_collector):
    collector = make_collector()
    # The limit on file size stands for the disk: writing beyond it fails just as halfway through a record.
    resource.prlimit(collector.pid, resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    accepted, outcome = 0, None
    while outcome is None and accepted < 200:
        try:
            export(collector, a_request(accepted + 1))
            accepted += 1
        except grpc.RpcError as error:
            outcome = error
    assert outcome.code() == grpc.StatusCode.UNAVAILABLE
    assert "the log cannot be written" in outcome.details()
    assert retry_seconds(dict(outcome.trailing_metadata())) == 1.0
    assert refused(collector, "log_error") >= 1
    assert collector.metric("introspan_collector_log_write_errors_total") >= 1
    resource.prlimit(collector.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    export(collector, a_request(accepted + 1))
    collector.wait_processed()
    assert collector.metric(ENTROPY_COUNT) == (accepted + 1) * 4
    assert "the log cannot be written" in collector.output()


def test_a_producer_over_its_rate_is_told_how_long_to_wait(make_collector):
    collector = make_collector(
        "[accept]\nproducer_bytes_per_second = 1000.0\nproducer_burst_bytes = 1500.0\n"
    )
    export(collector, a_request())
    code, _, metadata = refusal(export, collector, a_request(2))
    assert code == grpc.StatusCode.UNAVAILABLE
    assert 0.1 < retry_seconds(metadata) <= 1.5
    assert refused(collector, "producer_rate") == 1
    export(collector, a_request(1, producer=b"q" * 16))


def test_a_collector_with_a_token_lets_nobody_in_without_it(make_collector, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    collector = make_collector(f'[accept]\nbearer_token_file = "{tmp_path / "token"}"\n')
    for metadata in ((), (("authorization", "Bearer wrong"),)):
        code, details, _ = refusal(export, collector, a_request(), metadata=metadata)
        assert code == grpc.StatusCode.UNAUTHENTICATED
        assert "secret" not in details
    export(collector, a_request(), metadata=(("authorization", "Bearer secret"),))


def test_sigterm_says_not_serving_answers_what_is_under_way_saves_and_ends_with_0(make_collector):
    collector = make_collector()
    with grpc.insecure_channel(collector.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        updates = health.Watch(health_pb2.HealthCheckRequest(service=METHOD.split("/")[1]))
        assert next(updates).status == health_pb2.HealthCheckResponse.SERVING
        for sequence in range(1, 50):
            export(collector, a_request(sequence))
        began = time.monotonic()
        collector.signal(signal.SIGTERM)
        assert next(updates).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert collector.stop() == 0
    assert time.monotonic() - began < 10
    assert collector.output().rstrip().endswith("collector stopped"), "nothing else is worth saying"
    collector.start()
    assert collector.metric("introspan_collector_processed_batches_total") == 0
    assert collector.metric(ENTROPY_COUNT) == 49 * 4


def test_sigterm_ends_within_ten_seconds_whoever_hangs(make_collector):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = "{}:{}".format(*silent.getsockname())
        collector = make_collector(f'[canary]\nendpoints = ["http://{address}"]\n')
        silent.accept()  # a canary is being asked, and gets no answer
        host, port = collector.http.split(":")
        with socket.create_connection((host, int(port))) as caller:
            caller.sendall(
                b"POST /api/v1/maintenance HTTP/1.1\r\nHost: collector\r\n"
                b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
            )
            export(collector, a_request())
            began = time.monotonic()
            collector.signal(signal.SIGTERM)
            assert collector.stop() == 0
        assert time.monotonic() - began < 10
    collector.start()
    assert collector.metric(ENTROPY_COUNT) == 4

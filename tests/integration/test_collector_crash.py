"""A collector that is killed: nothing it acknowledged is lost, nothing is counted twice."""

import os
import random
import threading
import time
import uuid
from contextlib import contextmanager

import grpc
import numpy as np
import pytest

from bench import fleet
from introspan_collector.log.files import Disk
from introspan_collector.log.segment import find_records, segment_name, segment_starts
from introspan_wire import codec
from introspan_wire.v1 import observation_pb2 as pb
from introspan_wire.v1 import observation_service_pb2 as service_pb
from introspan_wire.v1 import observation_service_pb2_grpc as service_grpc
from tests.collector import Collector

ROWS = 4
COUNT = "introspan_output_entropy_nats_count"
SHAPE = fleet.Shape(residual_layers=(0, 2), attention_layers=(0,), projection_layers=(), heads=2)


@pytest.fixture
def collector(tmp_path, free_port):
    made = Collector(
        tmp_path, free_port, "[checkpoint]\ninterval_seconds = 0.05\n[archive]\nflush_seconds = 0.3\n"
    )
    yield made
    made.stop()


class Producer(threading.Thread):
    """Sends batches one after another and sends again whatever was not answered, as an SDK does."""

    def __init__(self, address, number, stopping):
        super().__init__(daemon=True)
        self.address, self.number, self.stopping = address, number, stopping
        self.id = uuid.UUID(int=number).bytes
        self.acknowledged = 0

    def run(self):
        table = fleet.table(fleet.schema(SHAPE), ROWS, np.random.default_rng(self.number))
        request = service_pb.ExportObservationsRequest(
            resource=pb.Resource(
                model_name="model", replica=f"replica-{self.number}", layer_count=32, head_count=2
            ),
            producer_id=self.id,
            tables=[codec.encode_table(table)],
        )
        with grpc.insecure_channel(self.address, [("grpc.max_reconnect_backoff_ms", 100)]) as channel:
            export = service_grpc.ObservationServiceStub(channel).ExportObservations
            while not self.stopping.is_set():
                request.sequence = self.acknowledged + 1
                names = [f"{self.number}-{request.sequence}-{row}" for row in range(ROWS)]
                request.tables[0].request_id[:] = names
                request.tables[0].time_unix_nano[:] = [time.time_ns()] * ROWS
                try:
                    export(request, timeout=5)
                except grpc.RpcError:
                    time.sleep(0.01)
                else:
                    self.acknowledged += 1


@contextmanager
def sending(address, count):
    """Producers that send until the end of the block."""
    stopping = threading.Event()
    producers = [Producer(address, number, stopping) for number in range(1, count + 1)]
    for producer in producers:
        producer.start()
    try:
        yield producers
    finally:
        stopping.set()
        for producer in producers:
            producer.join(10)


def logged(data):
    """(producer number, sequence) of every record in the log."""
    disk = Disk(data / "log")
    try:
        return [
            (uuid.UUID(bytes=found.header.producer).int, found.header.sequence)
            for start in segment_starts(disk)
            for found in find_records(disk, start, start + disk.size(segment_name(start)))
        ]
    finally:
        disk.close()


def test_kill_9_at_many_moments_loses_nothing_acknowledged_and_counts_nothing_twice(collector):
    collector.start()
    moments = random.Random(7)
    with sending(collector.grpc, 3) as producers:
        for _ in range(8):
            time.sleep(moments.uniform(0.02, 0.8))
            collector.kill()
            collector.start()
        time.sleep(0.5)
    assert min(producer.acknowledged for producer in producers) > 20

    collector.wait_processed()
    expected = {p.number: p.acknowledged for p in producers}
    records = logged(collector.data)
    assert len(records) == len(set(records))
    for number, acknowledged in expected.items():
        mine = [sequence for producer, sequence in records if producer == number]
        # The last one sent may be in the log without its answer having arrived.
        assert mine[:acknowledged] == list(range(1, acknowledged + 1))
        assert len(mine) <= acknowledged + 1
        for name in (COUNT, "introspan_segments_total"):
            assert collector.metric(name, replica=f"replica-{number}") == len(mine) * ROWS, name
    assert collector.stop() == 0
    found = [one["request_id"] for one in collector.observations()]
    assert sorted(found) == sorted(f"{n}-{s}-{row}" for n, s in records for row in range(ROWS))


def test_a_crash_between_log_and_processing_is_made_good_at_the_next_start(collector):
    collector.config.write_text("[checkpoint]\ninterval_seconds = 3600\n[archive]\nflush_seconds = 60\n")
    collector.start()
    with sending(collector.grpc, 1) as (producer,):
        time.sleep(1)
    collector.kill()
    collector.start()
    collector.wait_processed()
    assert collector.metric(COUNT) == producer.acknowledged * ROWS > 0
    collector.kill()
    collector.start()
    collector.wait_processed()
    assert collector.metric(COUNT) == producer.acknowledged * ROWS


def test_kill_9_while_the_archive_catches_up_with_the_aggregates_counts_nothing_twice(collector):
    collector.config.write_text("[checkpoint]\ninterval_seconds = 0.001\n[archive]\nflush_seconds = 60\n")
    collector.start()
    with sending(collector.grpc, 3) as producers:
        time.sleep(2)
    collector.wait_processed()
    for _ in range(3):
        collector.kill()
        collector.start()
    collector.wait_processed()
    assert collector.metric(COUNT) == sum(producer.acknowledged for producer in producers) * ROWS > 0


def test_a_torn_tail_and_a_damaged_record_are_counted_and_the_collector_goes_on(collector):
    collector.config.write_text("[checkpoint]\ninterval_seconds = 3600\n[archive]\nflush_seconds = 60\n")
    collector.start()
    with sending(collector.grpc, 1) as (producer,):
        time.sleep(1)
    collector.kill()
    segment = collector.data / "log" / segment_name(0)
    with segment.open("r+b") as file:
        file.seek(1_000)
        file.write(b"damage")
        file.seek(0, os.SEEK_END)
        file.write(b"\xabIL1 half a record")
    collector.start()
    collector.wait_processed()
    assert collector.metric("introspan_collector_log_torn_bytes_total") == 18
    assert collector.metric("introspan_collector_log_corrupt_bytes_total") > 1_000
    assert collector.metric(COUNT) == (producer.acknowledged - 1) * ROWS
    log = collector.output()
    assert "half-written records cut off the log" in log
    assert "damaged log skipped" in log

"""A collector that is killed: nothing it acknowledged is lost, nothing is counted twice."""

import os
import random
import signal
import threading
import time
import uuid
from contextlib import contextmanager, suppress

import grpc
import numpy as np
import pytest

from bench import fleet
from introspan_collector.archive.archive import Archive
from introspan_collector.log.files import Disk
from introspan_collector.log.segment import find_records, segment_name, segment_starts
from introspan_wire import codec
from introspan_wire.v1 import observation_pb2 as pb
from introspan_wire.v1 import observation_service_pb2 as service_pb
from introspan_wire.v1 import observation_service_pb2_grpc as service_grpc
from tests.collector import Collector
from tests.mortal import Moment, Mortals
from tests.patience import eventually

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
    """Sends batches one after another and sends again whatever was not answered, as an SDK does.

    answered is called at each answer, at once.
    """

    def __init__(self, address, number, stopping):
        super().__init__(daemon=True)
        self.address, self.number, self.stopping = address, number, stopping
        self.answered = lambda: None
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
                    self.answered()


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


@pytest.fixture(scope="module")
def mortals():
    with Mortals() as running:
        yield running


def options(collector):
    """Those of a collector in its place."""
    where = ("--config", collector.config, "--data", collector.data)
    return (*where, "--grpc", collector.grpc, "--http", collector.http)


def nothing_lost_and_nothing_twice(collector, producers):
    """What the log, the metrics and the archive hold, against what was acknowledged. Starts and ends a collector."""
    collector.start()
    collector.wait_processed()
    records = logged(collector.data)
    assert len(records) == len(set(records))
    for producer in producers:
        mine = [sequence for number, sequence in records if number == producer.number]
        # The last one sent may be in the log without its answer having arrived.
        assert mine[: producer.acknowledged] == list(range(1, producer.acknowledged + 1))
        assert len(mine) <= producer.acknowledged + 1
        for name in (COUNT, "introspan_segments_total"):
            assert collector.metric(name, replica=f"replica-{producer.number}") == len(mine) * ROWS, name
    assert collector.stop() == 0
    found = [one["request_id"] for one in collector.observations()]
    assert sorted(found) == sorted(f"{n}-{s}-{row}" for n, s in records for row in range(ROWS))
    every_entropy = ("output.entropy", None, None, None, None)
    tracks = Archive(collector.data / "archive").tracks(every_entropy, 0, time.time() + 60)
    assert sum(track.moments.count.sum() for track in tracks) == len(records) * ROWS


LOG, ACCEPT = "introspan_collector.log", "introspan_collector.accept"
AGGREGATE, ARCHIVE = "introspan_collector.aggregate", "introspan_collector.archive"
NTH = (1, 7)
STAGES = {
    "log": [
        *(Moment("halfway", f"{LOG}.files:Disk.write", n) for n in NTH),
        *(Moment("after", f"{LOG}.files:Disk.write", n) for n in NTH),
        # The first one is the recovery's own, of what the one before has left.
        *(Moment("after", f"{LOG}.files:Disk.sync", n) for n in NTH),
        *(Moment("after", f"{LOG}.appender:Appender.append", n) for n in NTH),
    ],
    "answer": [
        *(Moment("before", f"{ACCEPT}.intake:Intake._settle_durable", n) for n in NTH),
        *(Moment("after", f"{ACCEPT}.intake:Intake._settle_durable", n) for n in NTH),
    ],
    "aggregate": [
        # The first ones of a start are those of the log that nobody has read yet.
        *(Moment("before", f"{AGGREGATE}.aggregator:Aggregator.consume", n) for n in NTH),
        *(Moment("after", f"{AGGREGATE}.pending:Pending.add", n) for n in NTH),
        *(Moment("after", f"{AGGREGATE}.aggregator:Aggregator.consume", n) for n in NTH),
        *(Moment("after", "introspan_collector.detect.detector:Detector.consume", n) for n in NTH),
    ],
    "checkpoint": [
        *(Moment("before", f"{LOG}.files:Disk.replace", n) for n in (1, 2)),
        # Two consumers have one each: the second is then older than the first.
        *(Moment("before", "pathlib:Path.replace", n) for n in (1, 2)),
        *(Moment("after", "pathlib:Path.replace", n) for n in (1, 2)),
        *(Moment("after", f"{LOG}.files:Disk.replace", n) for n in (1, 2)),
    ],
    "archive": [
        # The files of a set of columns, of a rollup and of a part: each written, renamed and its folders made durable.
        *(Moment("before", "pathlib:Path.replace", n) for n in (1, 3)),
        *(Moment("after", f"{ARCHIVE}.files:_sync", n) for n in range(1, 7)),
        Moment("after", f"{ARCHIVE}.archive:Archive._write_files"),
    ],
    "start": [
        Moment("halfway", f"{LOG}.files:Disk.write", 20),
        *(Moment("before", f"{LOG}.files:Disk.truncate", 1) for _ in range(2)),
        Moment("after", f"{LOG}.files:Disk.truncate", 1),
        Moment("after", f"{LOG}.appender:recover", 1),
        Moment("after", f"{ARCHIVE}.archive:Archive._recover", 1),
        *(Moment("after", "introspan_collector.checkpoint:Checkpoint._restore", n) for n in (1, 2)),
        Moment("after", "introspan_collector.feed:Feed.start", 1),
    ],
}
OFTEN, SELDOM = "interval_seconds = 0.05", "interval_seconds = 3600"
CONFIGURATIONS = {
    # What another stage saves meanwhile is not to save this one.
    "checkpoint": f"[checkpoint]\n{OFTEN}\n[detect]\ncheckpoint_seconds = 0.05\n[archive]\nflush_seconds = 60\n",
    "archive": f"[checkpoint]\n{SELDOM}\n[archive]\nflush_seconds = 0.1\n",
    "aggregate": f"[checkpoint]\n{SELDOM}\n[archive]\nflush_seconds = 60\n",
}


@pytest.mark.parametrize("stage", STAGES)
def test_kill_9_at_the_borders_of_a_stage_loses_nothing_acknowledged_and_counts_nothing_twice(
    stage, collector, mortals, tmp_path
):
    if stage in CONFIGURATIONS:
        collector.config.write_text(CONFIGURATIONS[stage])
    with sending(collector.grpc, 3) as producers:
        for moment in STAGES[stage]:
            pid = mortals.start(options(collector), tmp_path / "mortal.log", moment)
            assert mortals.wait(pid, 20) == -signal.SIGKILL, (tmp_path / "mortal.log").read_text()[-2000:]
        # Some moments come before an answer could: one more lives until each producer has had answers behind them all.
        pid = mortals.start(options(collector), tmp_path / "mortal.log")
        for producer in producers:
            eventually(lambda producer=producer: producer.acknowledged >= 10, 20, poll_seconds=0.02)
        os.kill(pid, signal.SIGKILL)
        assert mortals.wait(pid, 20) == -signal.SIGKILL, (tmp_path / "mortal.log").read_text()[-2000:]
    nothing_lost_and_nothing_twice(collector, producers)


def test_kill_9_right_after_an_acknowledgement_and_at_any_time_loses_nothing_and_counts_nothing_twice(
    collector, mortals, tmp_path
):
    moments = random.Random(7)
    with sending(collector.grpc, 3) as producers:
        for number in range(16):
            pid = mortals.start(options(collector), tmp_path / "mortal.log")
            if number % 2:
                time.sleep(moments.uniform(0.02, 0.8))
            else:
                wait_answered(producers[number % 3], moments.choice((1, 2, 5, 20)), pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            assert mortals.wait(pid, 20) == -signal.SIGKILL, (tmp_path / "mortal.log").read_text()[-2000:]
    assert min(producer.acknowledged for producer in producers) > 10
    nothing_lost_and_nothing_twice(collector, producers)


def wait_answered(producer, count, pid):
    """Has the producer's thread kill the collector as soon as so many more of its batches are acknowledged."""
    last, done = producer.acknowledged + count, threading.Event()

    def answered():
        if producer.acknowledged >= last and not done.is_set():
            os.kill(pid, signal.SIGKILL)
            done.set()

    producer.answered = answered
    assert done.wait(20), f"{producer.acknowledged} of {last} batches were acknowledged"
    producer.answered = lambda: None


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

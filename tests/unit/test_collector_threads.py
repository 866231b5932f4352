"""The threads of the collector outlive what goes wrong in them, and /readyz says when one has ended all the same."""

import asyncio
import threading

import httpx
import numpy as np
import pytest
from structlog.testing import capture_logs

from bench import fleet
from introspan_collector.config import Settings
from introspan_collector.feed import Branch, Feed
from introspan_collector.log.appender import Appender
from introspan_collector.log.committer import Committer
from introspan_collector.log.reader import Reader
from introspan_collector.log.record import Record
from introspan_collector.log.retention import Retention
from introspan_collector.log.sequences import Sequences
from introspan_collector.pipeline import Pipeline
from introspan_collector.testing import VolatileDisk
from introspan_wire.codec import encode_table
from introspan_wire.v1 import observation_pb2 as pb
from introspan_wire.v1 import observation_service_pb2 as service_pb

NOW = 1_800_000_000 * 10**9
PRODUCER = b"p" * 16


class FaultyDisk(VolatileDisk):
    """A disk on which an operation can fail as nobody has foreseen."""

    fault = ""

    def write(self, name, position, data):
        self._check_fault("write")
        super().write(name, position, data)

    def read(self, name, position, size):
        self._check_fault("read")
        return super().read(name, position, size)

    def sync(self, name):
        self._check_fault("sync")
        super().sync(name)

    def _check_fault(self, operation):
        if self.fault == operation:
            raise MemoryError(operation)


def an_appender(disk):
    return Appender(disk, Sequences(10), Retention(max_bytes=10**9, max_age_seconds=1e9), segment_bytes=10**6)


def a_record(sequence):
    table = fleet.table(fleet.schema(fleet.Shape(heads=2)), 1, np.random.default_rng(0), time_unix_nano=NOW)
    request = service_pb.ExportObservationsRequest(
        resource=pb.Resource(model_name="model", replica="r", layer_count=32, head_count=32),
        producer_id=PRODUCER,
        sequence=sequence,
        tables=[encode_table(table)],
    )
    return Record(NOW, PRODUCER, sequence, request.SerializeToString())


class Answers:
    def __init__(self):
        self.errors = []
        self.came = threading.Semaphore(0)

    def __call__(self, error):
        self.errors.append(error)
        self.came.release()
        if error is not None:
            raise RuntimeError("the caller has gone")

    def next(self):
        assert self.came.acquire(timeout=5)
        return self.errors[-1]


def test_whatever_goes_wrong_in_the_log_is_answered_and_the_next_batch_is_appended():
    disk = FaultyDisk()
    committer = Committer(an_appender(disk), Sequences(10))
    answers = Answers()
    disk.fault = "write"
    committer.append(NOW, PRODUCER, 1, b"payload", answers)
    assert isinstance(answers.next(), MemoryError)
    disk.fault = ""
    committer.append(NOW, PRODUCER, 1, b"payload", answers)
    assert answers.next() is None
    assert (committer.alive, committer.write_errors > 0) == (True, True)
    committer.close()
    assert not committer.alive


def test_a_batch_that_was_refused_for_whatever_reason_is_not_found_after_a_restart():
    disk = FaultyDisk()
    log = an_appender(disk)
    disk.fault = "sync"
    with pytest.raises(MemoryError):
        log.append([a_record(1)])
    disk.fault = ""
    assert an_appender(disk).end == log.end == 0


class Clock:
    now = 1_000.0

    def __call__(self):
        return self.now


class Consumer:
    def __init__(self):
        self.sequences = []
        self.came = threading.Semaphore(0)

    def consume(self, batch):
        self.sequences.append(batch.sequence)
        self.came.release()


def a_feed(disk, log, *consumers, upkeep=None, save=lambda _offset: None, save_seconds=60.0, **clocks):
    return Feed(
        Reader(disk, 0),
        [Branch(f"consumer-{number}", consumer, 0) for number, consumer in enumerate(consumers)],
        log_end=lambda: log.end,
        grown=threading.Event(),
        upkeep=upkeep or {},
        save=save,
        save_seconds=save_seconds,
        **clocks,
    )


def refuse(*_):
    raise OSError("no space left on the device")


class Spoilt(Consumer):
    def consume(self, batch):
        super().consume(batch)
        refuse()


def test_what_is_tried_again_is_a_failure_and_no_batch_counts_as_dropped():
    disk = FaultyDisk()
    log = an_appender(disk)
    log.append([a_record(1)])
    consumer = Consumer()
    feed = a_feed(disk, log, consumer, upkeep={"archive": refuse}, save=refuse, save_seconds=0.001)
    feed.start()
    while not {"archive", "checkpoint"} <= set(feed.failures):
        assert feed.alive
    feed.stop(1.0)
    assert (consumer.sequences, feed.dropped) == ([1], {})


def test_a_batch_that_one_consumer_does_not_take_is_counted_for_it_and_the_others_have_it():
    disk = FaultyDisk()
    log = an_appender(disk)
    log.append([a_record(1)])
    log.append([a_record(2)])
    consumer = Consumer()
    feed = a_feed(disk, log, Spoilt(), consumer)
    feed.start()
    for _ in range(2):
        assert consumer.came.acquire(timeout=5)
    feed.stop(1.0)
    assert (consumer.sequences, feed.dropped, feed.failures) == ([1, 2], {"consumer-0_error": 2}, {})


def test_what_a_consumer_drops_is_said_once_an_hour_with_the_number_so_far():
    disk, clock = FaultyDisk(), Clock()
    log = an_appender(disk)
    feed = a_feed(disk, log, Spoilt(), save_seconds=1e9, monotonic=clock)
    with capture_logs() as logged:
        feed.start()
        for sequence, clock.now in enumerate((1_000.0, 1_000.0, 4_599.0, 4_601.0, 4_602.0), start=1):
            log.append([a_record(sequence)])
            while feed.dropped["consumer-0_error"] < sequence:
                assert feed.alive
        feed.stop(1.0)
    said = [(line["event"], line["reason"], line["dropped_so_far"]) for line in logged]
    assert said == [("batch dropped", "consumer-0_error", 1), ("batch dropped", "consumer-0_error", 4)]


def test_another_kind_of_error_is_said_at_once():
    disk, errors = FaultyDisk(), [OSError("full"), OSError("full"), ValueError("another")]

    def upkeep():
        if errors:
            raise errors.pop(0)

    with capture_logs() as logged:
        feed = a_feed(disk, an_appender(disk), upkeep={"archive": upkeep}, save_seconds=0.001)
        feed.start()
        while errors:
            assert feed.alive
        feed.stop(1.0)
    said = [(line["event"], line["failed_so_far"], repr(line["exc_info"])) for line in logged]
    assert said == [
        ("failed, is tried again", 1, "OSError('full')"),
        ("failed, is tried again", 3, "ValueError('another')"),
    ]


def test_whatever_goes_wrong_in_reading_is_counted_and_the_batch_is_read_afterwards():
    disk = FaultyDisk()
    log = an_appender(disk)
    log.append([a_record(1)])
    consumer = Consumer()
    feed = a_feed(disk, log, consumer)
    disk.fault = "read"
    feed.start()
    while not feed.failures["read"]:
        assert feed.alive
    disk.fault = ""
    assert consumer.came.acquire(timeout=5)
    feed.stop(1.0)
    assert (consumer.sequences, feed.dropped) == ([1], {})
    assert not feed.alive


@pytest.mark.parametrize("ended", ["committer", "feed"])
def test_a_collector_one_of_whose_threads_has_ended_is_not_ready(tmp_path, ended):
    async def scenario():
        pipeline = Pipeline(Settings(data=tmp_path, grpc="127.0.0.1:0", http="127.0.0.1:0"))
        _, http = await pipeline.start()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{http}") as client:
            statuses = [(await client.get("/readyz")).status_code]
            if ended == "feed":
                await asyncio.to_thread(pipeline._feed.stop, 1.0)
            else:
                await asyncio.to_thread(pipeline._committer.close)
            statuses.append((await client.get("/readyz")).status_code)
        await pipeline.drain()
        return statuses

    assert asyncio.run(scenario()) == [200, 503]

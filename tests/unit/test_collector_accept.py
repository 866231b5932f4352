"""What is let in: checks on requests, limits of producers, back-pressure, order of answers."""

import asyncio
import time

import grpc
import numpy as np
import pytest

from bench import fleet
from introspan_collector.accept.decode import decode
from introspan_collector.accept.intake import Intake
from introspan_collector.accept.limits import ProducerLimits
from introspan_collector.accept.pressure import Pressure
from introspan_collector.accept.refusal import RefusalError
from introspan_collector.model import DisabledSignal
from introspan_wire.codec import Column, FrameError, Schema, encode_table
from introspan_wire.limits import COLUMNS
from introspan_wire.signals import CATALOGUE, Kind, Statistic
from introspan_wire.v1 import observation_pb2 as pb
from introspan_wire.v1 import observation_service_pb2 as service_pb

NOW = 1_800_000_000 * 10**9
DAY_NANO = 86_400 * 10**9
PRODUCER = b"p" * 16
SHAPE = fleet.Shape(residual_layers=(0, 2), attention_layers=(0,), projection_layers=(0,), heads=2)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def a_request(sequence=1, rows=2):
    table = fleet.table(fleet.schema(SHAPE), rows, np.random.default_rng(0), time_unix_nano=NOW)
    return service_pb.ExportObservationsRequest(
        resource=pb.Resource(model_name="model", replica="r", layer_count=32, head_count=2),
        producer_id=PRODUCER,
        sequence=sequence,
        tables=[encode_table(table)],
        status=pb.ProducerStatus(measured_rows=7, drops=[pb.DropCount(reason="queue_full", segments=3)]),
    )


def test_a_request_decodes_to_its_origin_tables_and_status():
    decoded = decode(a_request().SerializeToString(), NOW)
    assert (decoded.producer, decoded.sequence, decoded.segments) == (PRODUCER, 1, 2)
    assert (decoded.origin.model, decoded.origin.replica, decoded.origin.layer_count) == ("model", "r", 32)
    assert decoded.status.drops == (("queue_full", 3),)
    assert decoded.tables[0].schema == fleet.schema(SHAPE)
    assert (decoded.unknown_columns, decoded.skewed_segments) == (0, 0)


def test_a_request_with_status_alone_is_accepted():
    request = a_request()
    del request.tables[:]
    assert decode(request.SerializeToString(), NOW).segments == 0


def with_layer(request, layer):
    request.tables[0].columns.layer[0] = layer


SPOILED = {
    "producer_id": lambda r: setattr(r, "producer_id", b"short"),
    "sequence": lambda r: setattr(r, "sequence", 0),
    "tables": lambda r: r.tables.extend([r.tables[0]] * 64),
    "resource.model_name": lambda r: setattr(r.resource, "model_name", ""),
    "resource.replica": lambda r: setattr(r.resource, "replica", ""),
    "resource.service_name": lambda r: setattr(r.resource, "service_name", "x" * 513),
    "resource.attributes": lambda r: r.resource.attributes.update({str(i): "" for i in range(65)}),
    "resource.attributes[key]": lambda r: r.resource.attributes.update({"key": "x" * 513}),
    "tables.request_id": lambda r: r.tables[0].request_id.__setitem__(0, "x" * 513),
    "tables.adapters": lambda r: r.tables[0].adapters.__setitem__(0, "x" * 513),
    "tables.columns.signals": lambda r: r.tables[0].columns.signals.__setitem__(0, "x" * 513),
    "tables.columns.layer": lambda r: with_layer(r, 33),
    "tables.columns.head": lambda r: r.tables[0].columns.head.__setitem__(0, -1),
    "status.drops": lambda r: r.status.drops.extend([r.status.drops[0]] * 256),
    "status.disabled": lambda r: r.status.disabled.extend([pb.DisabledSignal()] * 257),
}


@pytest.mark.parametrize("field", SPOILED)
def test_a_spoiled_request_is_malformed_and_the_field_is_named(field):
    request = a_request()
    SPOILED[field](request)
    with pytest.raises(FrameError) as error:
        decode(request.SerializeToString(), NOW)
    assert error.value.field == field
    assert str(error.value).startswith(f"{field} ")


def test_texts_of_the_status_are_cut_and_the_batch_is_taken():
    request = a_request()
    reasons = ["r" * 600, "r" * 700]
    request.status.ClearField("drops")
    request.status.drops.extend(pb.DropCount(reason=reason, segments=3) for reason in reasons)
    request.status.disabled.add(signal="s" * 2000, reason="r" * 2000, detail="d" * 2000)
    status = decode(request.SerializeToString(), NOW).status
    assert status.drops == (("r" * 64, 6),)
    assert status.disabled == (DisabledSignal("s" * 512, "r" * 64, "d" * 512),)


def test_a_table_with_too_many_columns_is_malformed_and_the_limit_is_named():
    columns = [Column("output.entropy", Statistic.MEAN)] * (COLUMNS + 1)
    with pytest.raises(FrameError, match=rf"tables.columns must be at most {COLUMNS}, got {COLUMNS + 1}"):
        decode_columns(*columns)
    assert decode_columns(*columns[1:]).tables[0].values.shape == (1, COLUMNS)


@pytest.mark.parametrize("signal", CATALOGUE)
def test_a_column_with_an_axis_its_signal_lacks_or_without_one_it_has_is_malformed(signal):
    axes = {axis.value: 0 for axis in CATALOGUE[signal].axes}
    right = Column(signal, Statistic.MEAN, **axes)
    decode_columns(right)
    for axis in ("layer", "head", "component"):
        with pytest.raises(FrameError, match=f"tables.columns.{axis} of {signal} must be"):
            decode_columns(right._replace(**{axis: -1 if axis in axes else 0}))


def decode_columns(*columns):
    request = a_request()
    table = fleet.table(fleet.schema(SHAPE), 1, np.random.default_rng(0), time_unix_nano=NOW)
    values = np.ones((1, len(columns)), np.float32)
    names = {name: getattr(table, name) for name in table.__slots__}
    spoiled = type(table)(**names | {"schema": Schema(Kind.DECODED, columns), "values": values})
    request.tables[0].CopyFrom(encode_table(spoiled))
    return decode(request.SerializeToString(), NOW)


def test_columns_of_unknown_signals_are_left_out_with_their_values():
    known = Column("output.entropy", Statistic.MEAN)
    decoded = decode_columns(Column("a.new.one", Statistic.MEAN, 5), known, Column("another", Statistic.MEAN))
    assert decoded.unknown_signals == ("a.new.one", "another")
    assert decoded.unknown_columns == 2
    assert decoded.tables[0].schema.columns == (known,)
    assert decoded.tables[0].values.shape == (1, 1)


@pytest.mark.parametrize("offset", [-DAY_NANO - 10**9, DAY_NANO + 10**9, -NOW])
def test_times_more_than_a_day_off_become_the_time_of_receipt(offset):
    request = a_request()
    request.tables[0].time_unix_nano[1] = NOW + offset
    decoded = decode(request.SerializeToString(), NOW + 5)
    assert decoded.skewed_segments == 1
    assert decoded.tables[0].time_unix_nano.tolist() == [NOW, NOW + 5]


def test_a_producer_may_send_its_burst_and_then_its_rate():
    clock = Clock()
    limits = ProducerLimits(bytes_per_second=100, burst_bytes=1000, max_producers=2, monotonic=clock)
    assert limits.wait_seconds(PRODUCER, 900) == 0
    assert limits.wait_seconds(PRODUCER, 300) == pytest.approx(2)
    clock.now += 2
    assert limits.wait_seconds(PRODUCER, 300) == 0
    assert limits.wait_seconds(b"q" * 16, 1000) == 0


def test_a_batch_larger_than_the_burst_passes_once_the_bucket_is_full():
    clock = Clock()
    limits = ProducerLimits(bytes_per_second=100, burst_bytes=1000, max_producers=2, monotonic=clock)
    assert limits.wait_seconds(PRODUCER, 5000) == 0
    assert limits.wait_seconds(PRODUCER, 1) > 0


def test_a_silent_producer_makes_room_for_a_new_one_after_a_minute():
    clock = Clock()
    limits = ProducerLimits(bytes_per_second=100, burst_bytes=100, max_producers=2, monotonic=clock)
    for producer in (b"a", b"b"):
        assert limits.has_room(producer)
        limits.wait_seconds(producer, 1)
    assert not limits.has_room(b"c")
    clock.now += 61
    limits.wait_seconds(b"b", 1)
    assert limits.has_room(b"c")
    limits.wait_seconds(b"c", 1)
    assert not limits.has_room(b"d")


@pytest.mark.parametrize(
    ("pending", "lag", "resident", "reason"),
    [(0, 0, 0, ""), (11, 0, 0, "log_behind"), (0, 21, 0, "consumers_behind"), (0, 0, 31, "memory")],
)
def test_pressure_gives_its_reason(pending, lag, resident, reason):
    pressure = Pressure(
        max_pending_bytes=10,
        max_lag_bytes=20,
        max_resident_bytes=30,
        lag_bytes=lambda: lag,
        resident=lambda: resident,
    )
    pressure.pending_bytes = pending
    assert pressure.must_refuse() == reason


class Journal:
    """A log that answers when told to."""

    def __init__(self):
        self.waiting = []
        self.logged = set()

    def seen(self, producer, sequence):
        return (producer, sequence) in self.logged

    def append(self, _received_unix_nano, producer, sequence, payload, done, _decoded):
        self.waiting.append((producer, sequence, payload, done))

    def answer(self, error=None):
        producer, sequence, _, done = self.waiting.pop(0)
        if error is None:
            self.logged.add((producer, sequence))
        done(error)


def an_intake(journal, lag=0):
    pressure = Pressure(
        max_pending_bytes=10**6,
        max_lag_bytes=10,
        max_resident_bytes=10**12,
        lag_bytes=lambda: lag,
    )
    limits = ProducerLimits(bytes_per_second=1e9, burst_bytes=1e9, max_producers=10)
    intake = Intake(journal, pressure, limits, max_request_bytes=10**6, clock=lambda: NOW / 1e9)
    return intake, pressure


async def settled(*tasks):
    """Lets everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


def test_nothing_is_answered_before_it_is_durable_and_the_log_gets_the_bytes_that_came():
    async def scenario():
        journal = Journal()
        intake, pressure = an_intake(journal)
        raw = a_request().SerializeToString()
        task = asyncio.create_task(intake.accept(raw))
        assert await settled(task) == [False]
        assert (intake.accepted_batches, pressure.pending_bytes) == (0, len(raw))
        assert journal.waiting[0][2] is raw
        journal.answer()
        await task
        assert (intake.accepted_batches, intake.accepted_segments, pressure.pending_bytes) == (1, 2, 0)

    asyncio.run(scenario())


def test_a_duplicate_waits_for_the_first_even_if_its_caller_hung_up():
    async def scenario():
        journal = Journal()
        intake, _ = an_intake(journal)
        raw = a_request().SerializeToString()
        first = asyncio.create_task(intake.accept(raw))
        await settled()
        second = asyncio.create_task(intake.accept(raw))
        assert await settled(first, second) == [False, False]
        first.cancel()
        assert await settled(second) == [False]
        assert len(journal.waiting) == 1
        journal.answer()
        await second
        assert (intake.accepted_batches, intake.duplicate_batches) == (1, 1)
        await intake.accept(raw)
        assert (intake.accepted_batches, intake.duplicate_batches, journal.waiting) == (1, 2, [])

    asyncio.run(scenario())


def test_a_failed_write_refuses_the_batch_and_the_next_attempt_is_logged():
    async def scenario():
        journal = Journal()
        intake, pressure = an_intake(journal)
        raw = a_request().SerializeToString()
        task = asyncio.create_task(intake.accept(raw))
        await settled()
        journal.answer(OSError("full"))
        with pytest.raises(RefusalError) as error:
            await task
        assert (error.value.code, error.value.reason) == (grpc.StatusCode.UNAVAILABLE, "log_error")
        assert pressure.pending_bytes == 0
        task = asyncio.create_task(intake.accept(raw))
        await settled()
        journal.answer()
        await task
        assert intake.accepted_batches == 1

    asyncio.run(scenario())


def test_under_pressure_nothing_is_logged():
    journal = Journal()
    intake, _ = an_intake(journal, lag=11)
    with pytest.raises(RefusalError) as error:
        asyncio.run(intake.accept(a_request().SerializeToString()))
    assert (error.value.reason, error.value.retry_seconds) == ("consumers_behind", 1.0)
    assert journal.waiting == []


def test_answers_of_a_group_arrive_with_one_wake_up():
    async def scenario():
        journal = Journal()
        intake, _ = an_intake(journal)
        tasks = [
            asyncio.create_task(intake.accept(a_request(sequence).SerializeToString()))
            for sequence in range(1, 6)
        ]
        await settled()
        woken = []
        loop = asyncio.get_running_loop()
        original = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *args: (woken.append(args), original(*args))
        for _ in range(5):
            journal.answer()
        await asyncio.wait_for(asyncio.gather(*tasks), 5)
        assert len(woken) == 1
        assert intake.accepted_batches == 5

    started = time.monotonic()
    asyncio.run(scenario())
    assert time.monotonic() - started < 5

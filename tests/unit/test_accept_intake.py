"""The order of answers: nothing is answered before it is durable."""

import asyncio
import time

import grpc
import pytest

from introspan_collector.accept.intake import Intake
from introspan_collector.accept.limits import ProducerLimits
from introspan_collector.accept.pressure import Pressure
from introspan_collector.accept.refusal import RefusalError
from introspan_wire.v1.observation_service_pb2 import ExportObservationsResponse
from tests.requests import NOW, a_request


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


def test_a_batch_that_was_not_taken_as_it_came_is_answered_with_every_remark_and_counted_once():
    request = a_request(rows=3)
    request.tables.add().CopyFrom(request.tables[0])
    request.tables[0].kind = 77
    request.tables[1].columns.signals[0] = "a.new.one"
    request.tables[1].time_unix_nano[0] = 1
    raw = request.SerializeToString()

    async def scenario():
        journal = Journal()
        intake, _ = an_intake(journal)
        task = asyncio.create_task(intake.accept(raw))
        await settled()
        journal.answer()
        first, again = await task, await intake.accept(raw)
        assert first == again
        assert (intake.accepted_segments, intake.rejected_segments) == (3, 3)
        return ExportObservationsResponse.FromString(first).partial_success

    told = asyncio.run(scenario())
    assert told.rejected_segments == 3
    kinds, signals, times = told.error_message.split("; ", 4)[::2]
    assert kinds.startswith("tables.kind: 3 segments of kinds this collector does not know (77)")
    assert signals.startswith("tables.columns.signals: 1 not in this collector's catalogue")
    assert times.startswith("tables.time_unix_nano: 1 segments are more than a day off")

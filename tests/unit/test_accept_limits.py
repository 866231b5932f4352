"""Limits of producers, and back-pressure."""

import pytest

from introspan_collector.accept.limits import ProducerLimits
from introspan_collector.accept.pressure import Pressure
from tests.requests import PRODUCER


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


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

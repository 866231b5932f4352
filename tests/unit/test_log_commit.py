"""Group commit: how many records share a sync, and which ones wait for others."""

import threading

import structlog

from introspan_collector.log.committer import Committer
from introspan_collector.testing import VolatileDisk
from tests.logs import A, open_log


class GatedDisk(VolatileDisk):
    """Syncs only while its gate is open."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.syncing = threading.Semaphore(0)

    def sync(self, name):
        self.syncing.release()
        assert self.gate.wait(5)
        super().sync(name)


class RefusingDisk(VolatileDisk):
    """Writes only while it is not full."""

    is_full = False

    def write(self, name, position, data):
        if self.is_full:
            raise OSError(28, "No space left on device")
        super().write(name, position, data)


class Answers:
    def __init__(self):
        self.came = threading.Semaphore(0)

    def __call__(self, error):
        assert error is None
        self.came.release()

    def wait(self, count):
        for _ in range(count):
            assert self.came.acquire(timeout=5)


def test_a_record_that_comes_alone_waits_for_no_others():
    disk, waits, answers = GatedDisk(), [], Answers()
    disk.gate.set()
    log, sequences = open_log(disk)
    committer = Committer(log, sequences, sleep=waits.append)
    for sequence in range(1, 4):
        committer.append(1, A, sequence, b"payload", answers)
        answers.wait(1)
    committer.close()
    assert waits == []
    assert log.syncs == 3


def test_while_records_come_together_the_next_ones_share_one_sync():
    disk, answers = GatedDisk(), Answers()
    log, sequences = open_log(disk)
    waits = []

    def others_come(seconds):
        waits.append(seconds)
        for sequence in (5, 6):
            committer.append(1, A, sequence, b"payload", answers)

    committer = Committer(log, sequences, sleep=others_come)
    committer.append(1, A, 1, b"payload", answers)
    assert disk.syncing.acquire(timeout=5)
    for sequence in (2, 3):
        committer.append(1, A, sequence, b"payload", answers)
    disk.gate.set()
    answers.wait(3)
    assert (waits, log.syncs) == ([], 2)
    committer.append(1, A, 4, b"payload", answers)
    answers.wait(3)
    assert (len(waits), log.syncs) == (1, 3)
    assert 0 < waits[0] < 0.01
    committer.close()
    assert sequences.seen(A, 6)


def test_each_time_that_the_disk_refuses_is_logged_once_and_so_is_its_end():
    disk = RefusingDisk()
    log, sequences = open_log(disk)
    committer = Committer(log, sequences)
    answered = threading.Semaphore(0)
    with structlog.testing.capture_logs() as logs:
        for sequence, disk.is_full in enumerate([False, True, True, False, False, True, False], start=1):
            committer.append(1, A, sequence, b"payload", lambda _error: answered.release())
            assert answered.acquire(timeout=5)
        committer.close()
    refused, again = "the log cannot be written; batches are refused until it can", "the log is written again"
    assert [entry["event"] for entry in logs if entry["event"] in (refused, again)] == [refused, again] * 2
    assert committer.write_errors == 3

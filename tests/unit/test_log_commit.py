"""Group commit: how many records share a sync, and which ones wait for others."""

import threading

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

"""The log under crashes at any byte, loss of everything unsynced, and refused writes."""

import json

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from introspan_collector.log.appender import Appender
from introspan_collector.log.cursor import Cursor, load_cursor, save_cursor
from introspan_collector.log.reader import Reader
from introspan_collector.log.record import Record
from introspan_collector.log.retention import Retention
from introspan_collector.log.sequences import Sequences
from introspan_collector.testing import PowerLossError, VolatileDisk

PRODUCERS = [bytes([i]) * 16 for i in range(1, 5)]
GENEROUS_BYTES = 10**12
REFUSALS = [
    set(),
    {"write"},
    {"sync"},
    {"create"},
    {"write", "truncate"},
    {"sync", "truncate"},
    {"write", "truncate", "create"},
]


class Drawn:
    """Which unsynced changes survive, as Hypothesis likes it."""

    def __init__(self, draw):
        self.draw = draw

    def survives(self):
        return self.draw(st.booleans())

    def bytes_of(self, written):
        kept = written[: self.draw(st.one_of(st.just(len(written)), st.integers(0, len(written))))]
        hole = self.draw(st.integers(0, len(kept)))
        width = self.draw(st.sampled_from([0, 1, 30]))
        return kept[:hole] + bytes(len(kept[hole : hole + width])) + kept[hole + width :]


class LogMachine(RuleBasedStateMachine):
    """Producers that repeat what was not acknowledged, a consumer that checkpoints, and a world that fails."""

    dark = False

    @initialize(segment_bytes=st.integers(1, 600))
    def open_first(self, segment_bytes):
        self.segment_bytes = segment_bytes
        self.acknowledged = set()
        self.in_flight = {}
        self.sent = dict.fromkeys(PRODUCERS, 0)
        self.open(VolatileDisk())

    def open(self, disk):
        self.disk = disk
        self.disk.restart()
        self.dark = False
        cursor = load_cursor(self.disk, "consumer") or Cursor(0, b"[]")
        self.consumed = [tuple(item) for item in json.loads(cursor.state)]
        self.sequences = Sequences(100)
        self.appender = Appender(
            self.disk,
            self.sequences,
            Retention(max_bytes=GENEROUS_BYTES, max_age_seconds=GENEROUS_BYTES, clock=lambda: 1.0),
            segment_bytes=self.segment_bytes,
            not_before=cursor.offset,
        )
        self.reader = Reader(self.disk, cursor.offset)

    @precondition(lambda self: not self.dark)
    @rule(
        chosen=st.lists(st.sampled_from(PRODUCERS), unique=True, min_size=1),
        size=st.integers(0, 150),
        replies_arrive=st.booleans(),
    )
    def send(self, chosen, size, replies_arrive):
        group = []
        for producer in chosen:
            if producer not in self.in_flight:
                self.sent[producer] += 1
                self.in_flight[producer] = self.sent[producer]
            sequence = self.in_flight[producer]
            if self.sequences.seen(producer, sequence):
                self._acknowledge(producer, replies_arrive)
            else:
                group.append(Record(1, producer, sequence, payload_of(producer, sequence, size)))
        if not group:
            return
        try:
            self.appender.append(group)
        except OSError:
            return
        except PowerLossError:
            self.dark = True
            return
        for record in group:
            self._acknowledge(record.producer, replies_arrive)

    def _acknowledge(self, producer, reply_arrives):
        self.acknowledged.add((producer[0], self.in_flight[producer]))
        if reply_arrives:
            del self.in_flight[producer]

    @precondition(lambda self: not self.dark)
    @rule(steps=st.integers(1, 400))
    def power_will_fail(self, steps):
        self.disk.power_steps = steps

    @precondition(lambda self: not self.dark)
    @rule(operation=st.sampled_from(["sync", "truncate", "create", "replace"]))
    def power_will_fail_at(self, operation):
        self.disk.last_operation = operation

    @precondition(lambda self: not self.dark)
    @rule(operations=st.sampled_from(REFUSALS), after=st.integers(0, 200))
    def disk_refuses(self, operations, after):
        self.disk.refused, self.disk.refused_after = operations, after

    @precondition(lambda self: not self.dark)
    @rule(limit=st.integers(1, 5))
    def consume(self, limit):
        for _ in range(limit):
            found = self.reader.next_record(self.appender.end)
            if found is None:
                return
            assert found.payload.startswith(payload_of(found.header.producer, found.header.sequence, 0))
            self.consumed.append((found.header.producer[0], found.header.sequence))

    @precondition(lambda self: not self.dark)
    @rule()
    def checkpoint(self):
        try:
            state = json.dumps(self.consumed).encode()
            save_cursor(self.disk, "consumer", Cursor(self.reader.offset, state))
        except OSError:
            pass
        except PowerLossError:
            self.dark = True

    @rule(data=st.data())
    def power_loss_and_restart(self, data):
        self.open(self.disk.after_power_loss(Drawn(data.draw)))

    @rule()
    def kill_and_restart(self):
        self.open(self.disk)

    @invariant()
    def nothing_appears_twice_and_each_producer_stays_in_order(self):
        for producer in PRODUCERS:
            mine = [sequence for first, sequence in getattr(self, "consumed", []) if first == producer[0]]
            assert mine == sorted(set(mine))

    def teardown(self):
        if not hasattr(self, "disk"):
            return
        if self.dark:
            self.open(VolatileDisk(self.disk.durable))
        while (found := self.reader.next_record(self.appender.end)) is not None:
            self.consumed.append((found.header.producer[0], found.header.sequence))
        self.nothing_appears_twice_and_each_producer_stays_in_order()
        assert self.acknowledged <= set(self.consumed), "an acknowledged record was lost"
        assert self.reader.expired_bytes == 0


def payload_of(producer, sequence, size):
    return producer[:1] + sequence.to_bytes(2, "little") + b"\xabIL1" + bytes(size)


TestLog = LogMachine.TestCase
TestLog.settings = settings(max_examples=500, stateful_step_count=40, deadline=None)

"""The log under crashes at any byte, loss of everything unsynced, and refused writes."""

import errno
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


class PowerLossError(Exception):
    """The machine stops here."""


class VolatileDisk:
    """A directory of which only synced bytes are sure to survive. Every byte and operation costs one step.

    power_steps: steps until the power fails or the process is killed; last_operation: where it does at once.
    refused: operations that fail; refused_after: how many bytes of a refused write still reach the file.
    """

    def __init__(self, durable):
        self.durable = dict(durable)
        self.current = {name: bytearray(data) for name, data in durable.items()}
        self.unsynced = {name: [] for name in durable}
        self.power_steps = GENEROUS_BYTES
        self.last_operation = ""
        self.refused = set()
        self.refused_after = 0

    def _spend(self, operation, steps=1):
        if operation == self.last_operation:
            self.power_steps = 0
        allowed = min(steps, self.power_steps)
        if operation in self.refused:
            allowed = min(allowed, self.refused_after if operation == "write" else 0)
        self.power_steps -= allowed
        return allowed

    def _check(self, allowed, steps=1):
        if self.power_steps == 0:
            raise PowerLossError
        if allowed < steps:
            raise OSError(errno.ENOSPC, "no space left on the device")

    def names(self):
        return sorted(self.current)

    def size(self, name):
        return len(self.current[name])

    def read(self, name, position, size):
        if name not in self.current:
            raise FileNotFoundError(name)
        return bytes(self.current[name][position : position + size])

    def create(self, name):
        self._check(self._spend("create"))
        self.current[name] = bytearray()
        self.durable[name] = b""
        self.unsynced[name] = []

    def write(self, name, position, data):
        allowed = self._spend("write", len(data))
        self._apply(name, (position, data[:allowed]))
        self._check(allowed, len(data))

    def truncate(self, name, size):
        self._check(self._spend("truncate"))
        self._apply(name, (size, None))

    def _apply(self, name, change):
        self.unsynced[name].append(change)
        self.current[name] = _changed(self.current[name], change)

    def sync(self, name):
        self._check(self._spend("sync"))
        self.durable[name] = bytes(self.current[name])
        self.unsynced[name] = []

    def remove(self, name):
        self._check(self._spend("remove"))
        for files in (self.current, self.durable, self.unsynced):
            del files[name]

    def replace(self, name, data):
        self._check(self._spend("replace"))
        self.current[name], self.durable[name], self.unsynced[name] = bytearray(data), data, []

    def close(self):
        pass

    def after_power_loss(self, draw):
        """What the disk holds afterwards: of the unsynced changes any subset, each with any bytes missing."""
        survived = {}
        for name, data in self.durable.items():
            content = bytearray(data)
            for position, written in self.unsynced[name]:
                if written is None:
                    if draw(st.booleans()):
                        content = _changed(content, (position, None))
                else:
                    kept = written[: draw(st.integers(0, len(written)))]
                    hole = draw(st.integers(0, len(kept)))
                    width = draw(st.sampled_from([0, 1, 30]))
                    kept = kept[:hole] + bytes(len(kept[hole : hole + width])) + kept[hole + width :]
                    content = _changed(content, (position, kept))
            survived[name] = bytes(content)
        return VolatileDisk(survived)


def _changed(content, change):
    position, written = change
    if written is None:
        return content[:position] + bytearray(max(position - len(content), 0))
    if not written:
        return content
    padded = content + bytearray(max(position - len(content), 0))
    padded[position : position + len(written)] = written
    return padded


class LogMachine(RuleBasedStateMachine):
    """Producers that repeat what was not acknowledged, a consumer that checkpoints, and a world that fails."""

    dark = False

    @initialize(segment_bytes=st.integers(1, 600))
    def open_first(self, segment_bytes):
        self.segment_bytes = segment_bytes
        self.acknowledged = set()
        self.in_flight = {}
        self.sent = dict.fromkeys(PRODUCERS, 0)
        self.open(VolatileDisk({}))

    def open(self, disk):
        self.disk = disk
        self.disk.power_steps = GENEROUS_BYTES
        self.disk.last_operation = ""
        self.disk.refused = set()
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
        self.open(self.disk.after_power_loss(data.draw))

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

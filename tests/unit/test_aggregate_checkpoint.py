"""Checkpoints of the aggregates, and settings that are refused."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest

from bench.fleet import batch, origin
from introspan_collector.aggregate.aggregator import AggregateSettings, Aggregator
from introspan_collector.model import DisabledSignal, ProducerStatus
from tests.aggregates import NOW, Clock, histogram, random_table


def test_a_worker_goes_on_from_a_checkpoint_as_if_nothing_had_happened():
    clock = Clock()
    before, after = (Aggregator(clock_unix_nano=clock) for _ in range(2))
    who = replace(origin(), attributes=(("host.name", "a"), ("zone", "b")))
    disabled = (DisabledSignal("attention.entropy", "probe_error", "raised"),)
    status = ProducerStatus(1, 2, 0.1, (("queue_full", 3),), disabled, 0, 0, 0, 1.0)
    before.consume(batch(random_table(3), who=who, received_unix_nano=NOW, status=status))
    workers, snapshot = before.view().workers, before.snapshot()
    clock.forward(86_400)
    after.restore(snapshot)
    assert after.view().workers == workers
    after.consume(batch(random_table(2), who=who, number=1, received_unix_nano=NOW + 1))
    (worker,) = after.view().workers
    assert (worker.origin, worker.status, worker.segments) == (who, status, (("decoded", 5),))


def test_restored_workers_keep_to_the_limit_and_the_longest_unseen_goes_first():
    before = Aggregator(clock_unix_nano=lambda: NOW)
    for number, replica in enumerate(("a", "b", "a", "c")):
        before.consume(batch((), who=origin(replica=replica), number=number, received_unix_nano=NOW))
    after = Aggregator(AggregateSettings(worker_limit=2), clock_unix_nano=lambda: NOW)
    after.restore(before.snapshot())
    assert [worker.origin.replica for worker in after.view().workers] == ["a", "c"]


def with_header(snapshot, change):
    with np.load(io.BytesIO(snapshot)) as archive:
        header, counts = json.loads(archive["header"].tobytes()), archive["counts"]
    change(header)
    buffer = io.BytesIO()
    np.savez(buffer, header=np.frombuffer(json.dumps(header).encode(), np.uint8), counts=counts)
    return buffer.getvalue()


def test_a_checkpoint_from_before_workers_were_saved_restores_all_else():
    before, after = (Aggregator(clock_unix_nano=lambda: NOW) for _ in range(2))
    before.consume(batch(random_table(), received_unix_nano=NOW))
    after.restore(with_header(before.snapshot(), lambda header: header.pop("workers")))
    assert histogram(after, "output.entropy").counts.sum() == 2
    assert after.view().workers == ()


def test_a_checkpoint_with_a_worker_of_another_version_is_refused():
    aggregator = Aggregator(clock_unix_nano=lambda: NOW)
    aggregator.consume(batch(random_table(), received_unix_nano=NOW))
    data = with_header(
        aggregator.snapshot(), lambda header: header["workers"][0]["origin"].update(colour="red")
    )
    with pytest.raises(ValueError, match=r"another version .*colour"):
        aggregator.restore(data)


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_checkpoint_is_refused_and_changes_nothing(damage):
    aggregator = Aggregator(clock_unix_nano=lambda: NOW)
    aggregator.consume(batch(random_table(), received_unix_nano=NOW))
    data = aggregator.snapshot()[:-40] if damage is None else damage
    with pytest.raises(ValueError, match="damaged"):
        aggregator.restore(data)
    assert histogram(aggregator, "output.entropy").counts.sum() == 2


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("slot_seconds", 0),
        ("slot_seconds", 7),
        ("shown_slots", -1),
        ("series_limit", 0),
        ("idle_seconds", 0),
        ("kept_slots", 3),
        ("kept_slots", 7),
        ("kept_slots", 1441),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name_and_value(setting, value):
    with pytest.raises(ValueError, match=rf"{setting} must .*{value}"):
        AggregateSettings(**{setting: value})

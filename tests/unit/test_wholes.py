"""Parts of requests that several workers measured are put together before anything is made of them."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from introspan_collector.detect.detector import Detector
from introspan_collector.detect.settings import DetectSettings
from introspan_collector.detect.wholes import WAIT_SECONDS, Wholes
from introspan_wire.signals import Kind
from tests.batches import Traffic
from tests.workers import spread

NOW = 1_800_000_000
NANO = 10**9


def given(wholes, batches, now=NOW):
    return [whole for one in batches for whole in wholes.take(one, now * NANO)]


def values(tables):
    """What is measured, by segment and column."""
    return {
        (table.request_id[row], table.schema.kind, int(table.segment_index[row]), column): float(value)
        for table in tables
        for row in range(len(table))
        for column, value in zip(table.schema.columns, table.values[row], strict=True)
    }


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_a_segment_is_whole_once_all_parts_have_come_in_whatever_order(order):
    batch, wholes = Traffic().batch(5, NOW), Wholes()
    parts = spread(batch, stages=3, bound=10)
    assert given(wholes, [parts[i] for i in order[:-1]]) == []
    found = given(wholes, [parts[order[-1]]])
    assert values(one.table for one in found) == values(batch.tables)
    assert sum(len(one.table) for one in found) == 10, "no row twice"
    assert {one.origin.part for one in found} == {(0, 0)}
    assert len(wholes) == 0


def test_what_is_not_of_several_workers_passes_as_it_is():
    batch = Traffic().batch(5, NOW)
    assert [one.table for one in Wholes().take(batch, 0)] == list(batch.tables)


def test_a_part_that_does_not_come_is_waited_for_once_and_again_when_it_was_back():
    traffic, wholes = Traffic(), Wholes()
    first, second = spread(traffic.batch(4, NOW), stages=2)
    assert given(wholes, [first]) == []
    assert list(wholes.late(NOW * NANO + round((WAIT_SECONDS - 1) * NANO))) == []
    late = list(wholes.late(NOW * NANO + round(WAIT_SECONDS * NANO)))
    assert values(one.table for one in late) == values(first.tables)
    assert wholes.incomplete == 8

    alone, _ = spread(traffic.batch(4, NOW), stages=2)
    assert len(given(wholes, [alone])) == 2, "nobody waits for a worker that sends nothing"

    given(wholes, [second])  # it is back
    again = traffic.batch(4, NOW)
    parts = spread(again, stages=2)
    assert given(wholes, parts[:1]) == []
    assert values(one.table for one in given(wholes, parts[1:])) == values(again.tables)


def test_who_sends_other_segments_is_not_silent_where_parts_of_some_are_lost():
    traffic, wholes = Traffic(), Wholes()
    lost, _ = spread(traffic.batch(4, NOW), stages=2)
    given(wholes, [lost])
    for second in range(0, 20, 4):
        found = given(wholes, spread(traffic.batch(4, NOW), stages=2), NOW + second)
        assert sum(len(one.table) for one in found) == 8
        list(wholes.late((NOW + second) * NANO))
    assert wholes.incomplete == 8
    first, _ = spread(traffic.batch(4, NOW), stages=2)
    assert given(wholes, [first], NOW + 20) == [], "both are waited for as before"


def test_a_segment_of_which_one_worker_has_fewer_tokens_is_one():
    batch = Traffic().batch(3, NOW)
    first, second = spread(batch, stages=2)
    tables = tuple(replace(table, token_count=table.token_count - np.uint32(1)) for table in first.tables)
    found = given(Wholes(), [replace(first, tables=tables), second])
    assert values(one.table for one in found) == values(batch.tables)
    assert [one.table.token_count.tolist() for one in found] == [[1] * 3, [64] * 3]


def test_a_silence_of_all_makes_nobody_absent():
    traffic, wholes = Traffic(), Wholes()
    given(wholes, spread(traffic.batch(4, NOW), stages=2))
    parts = spread(traffic.batch(4, NOW + 3600), stages=2)
    assert given(wholes, parts[:1], NOW + 3600) == []
    assert len(given(wholes, parts[1:], NOW + 3600)) == 2


def test_of_an_id_that_is_used_again_each_part_belongs_to_its_own_request():
    wholes = Wholes()
    one, other = Traffic(seed=1).batch(1, NOW), Traffic(seed=2).batch(1, NOW)
    assert one.tables[0].request_id == other.tables[0].request_id
    (a0, a1), (b0, b1) = (spread(batch, stages=2) for batch in (one, other))
    found = given(wholes, [a0, b0, a1, b1])
    assert [values([whole.table]) for whole in found] == [
        values([table]) for table in (*one.tables, *other.tables)
    ]


def test_what_waits_is_bounded():
    traffic, wholes = Traffic(), Wholes(most_bytes=40_000)
    for _ in range(100):
        given(wholes, spread(traffic.batch(10, NOW), stages=2)[:1])
    assert 0 < len(wholes) < 80
    assert wholes.incomplete > 0


def test_a_reference_is_built_of_as_many_requests_and_is_the_same():
    settings = DetectSettings(provisional_clusters=300, frozen_clusters=5_000)

    def learnt(send):
        now = [float(NOW)]
        detector, traffic = Detector(settings, clock=lambda: now[0]), Traffic()
        for _ in range(60):
            now[0] += 10.0
            for batch in send(replace(traffic.batch(10, now[0]))):
                detector.consume(batch)
            detector.advance()
        with detector.still() as still:
            (watch,) = still.watches.values()
            (progress,) = watch.progress().values()
            return progress.counts, watch.reference

    counts, reference = learnt(lambda batch: [batch])
    spread_counts, spread_reference = learnt(lambda batch: spread(batch, stages=2))
    assert spread_counts == counts
    assert counts.requests == 600
    for kind in (Kind.PROMPT, Kind.DECODED):
        mine, theirs = (one.populations[kind] for one in (reference, spread_reference))
        assert mine.names == theirs.names
        assert np.array_equal(mine.features, theirs.features, equal_nan=True)
        assert np.array_equal(mine.class_id, theirs.class_id)

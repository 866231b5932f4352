"""Limits and eviction of the aggregates."""

from dataclasses import replace

import numpy as np
import pytest

from bench.fleet import SECOND_NANO, batch, origin, table
from introspan_collector.aggregate.aggregator import AggregateSettings, Aggregator
from introspan_collector.model import ProducerStatus, SeriesKey
from introspan_collector.view import NO_LAYER, OVERFLOW
from introspan_wire.codec import SCHEMAS_KEPT, Column, Schema
from introspan_wire.signals import Kind, Statistic
from tests.aggregates import NOW, Clock, histogram, random_table, shown, with_column


def test_beyond_the_limit_everything_goes_on_in_overflow_series_by_signal():
    aggregator = Aggregator(AggregateSettings(series_limit=400), clock_unix_nano=lambda: NOW)
    for number in range(50):
        of = with_column(random_table(), "output.entropy", float(number))
        aggregator.consume(batch(of, who=origin(f"model-{number}"), number=number, received_unix_nano=NOW))
    view, window = aggregator.view(), shown(aggregator)
    assert view.series_used <= 400
    kept = {key.model for key in window if key.signal == "output.entropy"} - {OVERFLOW}
    spilled = [number for number in range(50) if f"model-{number}" not in kept]
    overflow = window[SeriesKey(OVERFLOW, OVERFLOW, OVERFLOW, "output.entropy", NO_LAYER)]
    assert overflow.count == 2 * len(spilled) > 0
    assert overflow.mean == pytest.approx(np.mean(spilled))
    assert sum(h.counts.sum() for h in view.histograms if h.signal == "output.entropy") == 100
    assert view.overflow_values > 0


def test_overflow_series_are_restored_as_such_and_take_no_allowance():
    settings = AggregateSettings(series_limit=400)
    before, after = (Aggregator(settings, clock_unix_nano=lambda: NOW) for _ in range(2))
    batches = [
        batch(random_table(), who=origin(f"model-{i}"), number=i, received_unix_nano=NOW) for i in range(50)
    ]
    for one in batches:
        before.consume(one)
    after.restore(before.snapshot())
    view = after.view()
    assert OVERFLOW in {histogram.model for histogram in view.histograms}
    histograms = sum(len(h.bounds) + 3 for h in view.histograms if h.model != OVERFLOW)
    series = 2 * sum(key.model != OVERFLOW for key in view.series)
    # When it was last seen, what it serves, and segments of one kind.
    workers = 3 * sum(worker.exposed for worker in view.workers)
    assert view.series_used == histograms + series + workers
    for one in batches:
        after.consume(one)
    spilled = sum(int(one.count) for key, one in shown(after).items() if key.model == OVERFLOW)
    assert after.view().overflow_values == spilled > 0


def test_idle_series_make_room_and_start_again_from_nothing():
    clock = Clock()
    aggregator = Aggregator(AggregateSettings(series_limit=400, idle_seconds=300), clock_unix_nano=clock)
    for round_ in range(3):
        for number in range(20):
            model = f"model-{round_}-{number}"
            of = with_column(random_table(1), "output.entropy", float(round_))
            aggregator.consume(batch(of, who=origin(model), received_unix_nano=clock.now))
        view = aggregator.view()
        mine = {key.model for key in view.series} - {OVERFLOW}
        assert mine
        assert all(model.startswith(f"model-{round_}-") for model in mine)
        means = {k: v.mean for k, v in shown(aggregator).items() if k.signal == "output.entropy"}
        assert set(means.values()) == {float(round_)}
        assert all(
            h.counts.sum() == 1 for h in view.histograms if h.model in mine and h.signal == "output.entropy"
        )
        assert len(view.workers) == 20
        clock.forward(1_000)


def test_a_model_that_found_no_room_gets_series_once_there_is():
    clock = Clock()
    aggregator = Aggregator(AggregateSettings(series_limit=400, idle_seconds=300), clock_unix_nano=clock)
    for number in range(20):
        aggregator.consume(
            batch(random_table(1), who=origin(f"model-{number}"), received_unix_nano=clock.now)
        )
    assert "model-19" not in {key.model for key in shown(aggregator)}
    for _ in range(10):
        clock.forward(60)
        aggregator.consume(batch(random_table(1), who=origin("model-19"), received_unix_nano=clock.now))
    assert "model-19" in {key.model for key in shown(aggregator)}


def test_workers_are_bounded_and_the_longest_unseen_goes_first():
    aggregator = Aggregator(AggregateSettings(worker_limit=2), clock_unix_nano=lambda: NOW)
    status = ProducerStatus(1, 2, 0.1, (), (), 0, 0, 0, 1.0)
    for number, replica in enumerate(("a", "b", "a", "c")):
        aggregator.consume(
            batch((), who=origin(replica=replica), number=number, received_unix_nano=NOW, status=status)
        )
    assert {worker.origin.replica for worker in aggregator.view().workers} == {"a", "c"}


def test_a_worker_that_comes_back_changed_is_the_same_worker():
    aggregator = Aggregator(clock_unix_nano=lambda: NOW)
    for number, fingerprint in enumerate(("aa", "bb")):
        who = replace(origin(), fingerprint=fingerprint)
        aggregator.consume(batch(random_table(3), who=who, number=number, received_unix_nano=NOW))
    (worker,) = aggregator.view().workers
    assert (worker.origin.fingerprint, worker.segments) == ("bb", (("decoded", 6),))


def test_counts_survive_a_replay_of_what_was_received_long_ago():
    clock = Clock()
    aggregator = Aggregator(AggregateSettings(idle_seconds=300), clock_unix_nano=clock)
    for number in range(3):
        aggregator.consume(
            batch(random_table(), number=number, received_unix_nano=NOW - 86_400 * SECOND_NANO)
        )
        aggregator.view()
        clock.forward(61)
    assert histogram(aggregator, "output.entropy").counts.sum() == 6
    assert [worker.segments for worker in aggregator.view().workers] == [(("decoded", 6),)]


def test_a_worker_keeps_its_last_status_when_a_batch_brings_none():
    aggregator = Aggregator(clock_unix_nano=lambda: NOW)
    status = ProducerStatus(1, 2, 0.1, (), (), 0, 0, 0, 1.0)
    aggregator.consume(batch(random_table(3), received_unix_nano=NOW - SECOND_NANO, status=status))
    aggregator.consume(batch(random_table(2), received_unix_nano=NOW))
    (worker,) = aggregator.view().workers
    assert (worker.status, worker.last_seen_unix_nano, worker.segments) == (status, NOW, (("decoded", 5),))


def test_a_schema_without_anything_to_aggregate_is_taken():
    aggregator = Aggregator(clock_unix_nano=lambda: NOW)
    columns = (Column("residual.projection", Statistic.SAMPLE, 8, component=0),)
    for of in (Schema(Kind.DECODED, columns), Schema(Kind.PROMPT, ())):
        aggregator.consume(batch(table(of, 2, np.random.default_rng(1)), received_unix_nano=NOW))
    assert aggregator.view().series == ()


def test_schemas_are_bounded_what_waits_of_those_that_go_is_kept_and_it_is_counted():
    aggregator = Aggregator(clock_unix_nano=lambda: NOW)
    for layer in range(200):
        of = Schema(Kind.DECODED, (Column("residual.turn", Statistic.MEAN, layer),))
        aggregator.consume(batch(table(of, 1, np.random.default_rng(1)), received_unix_nano=NOW))
        assert aggregator.view().schemas <= SCHEMAS_KEPT
    view = aggregator.view()
    assert (view.schemas, view.evicted_schemas) == (SCHEMAS_KEPT, 200 - SCHEMAS_KEPT)
    assert view.window.count.tolist() == [1] * 200


def test_a_schema_in_use_is_not_evicted_by_others_that_come_once():
    aggregator = Aggregator(clock_unix_nano=lambda: NOW)
    in_use = random_table()
    for layer in range(3 * SCHEMAS_KEPT):
        of = Schema(Kind.DECODED, (Column("residual.turn", Statistic.MEAN, layer),))
        aggregator.consume(batch((in_use, table(of, 1, np.random.default_rng(1))), received_unix_nano=NOW))
    assert aggregator.view().evicted_schemas == 2 * SCHEMAS_KEPT + 1
    assert histogram(aggregator, "output.entropy").counts.sum() == 2 * 3 * SCHEMAS_KEPT

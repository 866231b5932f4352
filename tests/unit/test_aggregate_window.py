"""The window, histograms and counters of the aggregates."""

from dataclasses import replace

import numpy as np
import pytest

from bench.fleet import SECOND_NANO, batch
from introspan_collector.aggregate.aggregator import Aggregator
from introspan_collector.model import SeriesKey
from introspan_collector.view import NO_LAYER
from tests.aggregates import NOW, Clock, histogram, random_table, shown, with_column

ENTROPY = SeriesKey("model", "replica-0", "", "output.entropy", NO_LAYER)


def test_window_forgets_what_is_older_than_it_shows():
    clock = Clock()
    aggregator = Aggregator(clock_unix_nano=clock)
    aggregator.consume(
        batch(with_column(random_table(), "output.entropy", 1.0), received_unix_nano=clock.now)
    )
    clock.forward(40)
    aggregator.consume(
        batch(with_column(random_table(), "output.entropy", 3.0), received_unix_nano=clock.now)
    )
    assert shown(aggregator)[ENTROPY].mean == pytest.approx(2.0)
    clock.forward(20)
    assert shown(aggregator)[ENTROPY].mean == pytest.approx(3.0)
    clock.forward(60)
    assert ENTROPY not in shown(aggregator)


def test_a_slot_that_is_used_again_starts_empty():
    clock = Clock()
    aggregator = Aggregator(clock_unix_nano=clock)
    for value in range(40):
        of = with_column(random_table(), "output.entropy", float(value))
        aggregator.consume(batch(of, received_unix_nano=clock.now))
        last = shown(aggregator)[ENTROPY]
        assert last.count == 2 * min(value + 1, 6)
        assert last.low == max(value - 5, 0)
        clock.forward(10)


def test_tracks_keep_slots_beyond_the_window_shown():
    clock = Clock()
    aggregator = Aggregator(clock_unix_nano=clock)
    for value in (1.0, 2.0, 3.0):
        aggregator.consume(
            batch(with_column(random_table(), "output.entropy", value), received_unix_nano=clock.now)
        )
        clock.forward(50)
    (track,) = aggregator.tracks(lambda key: key == ENTROPY, 10)
    assert track.moments.mean.tolist() == pytest.approx([2.0, 3.0])
    assert track.starts.tolist() == [NOW / SECOND_NANO + 50, NOW / SECOND_NANO + 100]


def test_batches_older_than_the_kept_slots_count_only_in_histograms():
    aggregator = Aggregator(clock_unix_nano=lambda: NOW)
    aggregator.consume(batch(random_table(), received_unix_nano=NOW))
    aggregator.consume(batch(random_table(), received_unix_nano=NOW - 3_600 * SECOND_NANO))
    assert shown(aggregator)[ENTROPY].count == 2
    assert histogram(aggregator, "output.entropy").counts.sum() == 4


def test_projections_have_neither_gauge_nor_histogram():
    aggregator = Aggregator(clock_unix_nano=lambda: NOW)
    aggregator.consume(batch(random_table(), received_unix_nano=NOW))
    view = aggregator.view()
    assert "residual.projection" not in {key.signal for key in view.series}
    assert "residual.projection" not in {h.signal for h in view.histograms}
    assert "residual.velocity" in {key.signal for key in view.series}


def test_values_of_seldom_sampled_requests_weigh_more():
    aggregator = Aggregator(clock_unix_nano=lambda: NOW)
    for value, probability in ((1.0, 1.0), (4.0, 0.5)):
        of = with_column(random_table(1, probability=probability), "output.entropy", value)
        aggregator.consume(batch(of, received_unix_nano=NOW))
    assert shown(aggregator)[ENTROPY].mean == pytest.approx(3.0)
    assert shown(aggregator)[ENTROPY].count == 2
    assert histogram(aggregator, "output.entropy").counts.sum() == 3.0


def test_infinite_values_are_counted_and_in_no_statistic():
    aggregator = Aggregator(clock_unix_nano=lambda: NOW)
    of = with_column(random_table(3), "output.entropy", [1.0, np.inf, np.nan])
    aggregator.consume(batch(of, received_unix_nano=NOW))
    assert (shown(aggregator)[ENTROPY].mean, shown(aggregator)[ENTROPY].count) == (1.0, 1)
    assert aggregator.view().infinite_values == 1


def test_events_count_values_seen_and_long_repetitions():
    aggregator = Aggregator(clock_unix_nano=lambda: NOW)
    of = with_column(random_table(3, probability=0.5), "output.nonfinite", [2.0, 0.0, 5.0])
    of = with_column(of, "output.repetition", [10.0, 64.0, 200.0])
    aggregator.consume(batch(of, received_unix_nano=NOW))
    events = {key.signal: total for key, total in aggregator.view().events if key.layer == NO_LAYER}
    assert events == {"output.nonfinite": 7.0, "output.repetition": 2.0, "sampler.greedy_mismatch": 0.0}


def test_adapters_have_series_of_their_own_and_share_histograms():
    aggregator = Aggregator(clock_unix_nano=lambda: NOW)
    of = replace(with_column(random_table(3), "output.entropy", [1.0, 2.0, 4.0]), adapter=["", "poet", ""])
    aggregator.consume(batch(of, received_unix_nano=NOW))
    assert shown(aggregator)[ENTROPY].mean == pytest.approx(2.5)
    assert shown(aggregator)[ENTROPY._replace(adapter="poet")].mean == pytest.approx(2.0)
    assert histogram(aggregator, "output.entropy").counts.sum() == 3

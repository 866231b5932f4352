"""Windows, limits and eviction of the aggregates."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest

from bench.fleet import SECOND_NANO, Shape, batch, origin, schema, table
from introspan_collector.aggregate.aggregator import AggregateSettings, Aggregator
from introspan_collector.model import DisabledSignal, ProducerStatus, SeriesKey
from introspan_collector.view import NO_LAYER, OVERFLOW
from introspan_wire.codec import Column, Schema
from introspan_wire.signals import Kind, Statistic

NOW = 1_800_000_000 * SECOND_NANO
SHAPE = Shape(residual_layers=(0, 8), attention_layers=(8,), projection_layers=(8,), heads=2)
ENTROPY = SeriesKey("model", "replica-0", "", "output.entropy", NO_LAYER)


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now

    def forward(self, seconds):
        self.now += int(seconds * SECOND_NANO)


def random_table(rows=2, seed=1, **options):
    return table(schema(SHAPE), rows, np.random.default_rng(seed), time_unix_nano=NOW, **options)


def with_column(of, signal, values):
    names = [column.signal for column in of.schema.columns]
    changed = of.values.copy()
    changed[:, names.index(signal)] = values
    return replace(of, values=changed)


def shown(aggregator):
    view = aggregator.view()
    return {key: view.window.at(i) for i, key in enumerate(view.series) if view.window.count[i]}


def histogram(aggregator, signal, model="model"):
    return next(h for h in aggregator.view().histograms if (h.model, h.signal) == (model, signal))


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
    workers = 2 * sum(worker.exposed for worker in view.workers)
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


def test_many_schemas_do_not_pile_up():
    aggregator = Aggregator(clock_unix_nano=lambda: NOW)
    for layer in range(200):
        of = Schema(Kind.DECODED, (Column("residual.turn", Statistic.MEAN, layer),))
        aggregator.consume(batch(table(of, 1, np.random.default_rng(1)), received_unix_nano=NOW))
    assert len(aggregator.view().series) == 200


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
    ],
)
def test_a_setting_out_of_range_is_refused_by_name_and_value(setting, value):
    with pytest.raises(ValueError, match=rf"{setting} must .*{value}"):
        AggregateSettings(**{setting: value})

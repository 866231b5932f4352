"""What a reference is made of: a fair sample, classes of input, cells."""

import numpy as np
import pytest

from bench import fleet
from introspan_collector.detect.live.bank import Bank
from introspan_collector.detect.reference.builder import KINDS, Builder
from introspan_collector.detect.reference.cells import fit_cells, length_bin, members
from introspan_collector.detect.reference.classes import NO_CLASS, fit_classes, no_classes
from introspan_collector.detect.reference.placement import Placer
from introspan_collector.detect.reference.reference import State
from introspan_collector.detect.reference.reservoir import Reservoir
from introspan_collector.detect.reference.space import fit_space
from introspan_collector.detect.sample import samples
from introspan_wire.signals import Kind
from tests.samples import CENTRES, IDENTITY, START_UNIX_NANO, sample


def reference(*samples):
    builder = Builder(IDENTITY)
    for one in samples:
        builder.add(one)
    return builder.reference(State.FROZEN, 0)


def gathered(*samples, capacity=1000):
    reservoir = Reservoir(Kind.PROMPT, capacity)
    for one in samples:
        reservoir.add(one, np.zeros((len(one), 0), np.float32))
    return reservoir, reservoir.gathered().rows


def test_requests_of_a_cluster_count_once_in_ten_seconds_however_many_they_are():
    rng = np.random.default_rng(1)
    burst = sample(
        rng,
        3000,
        cluster=np.repeat(np.arange(30, dtype=np.uint64), 100),
        time_unix_nano=np.full(3000, START_UNIX_NANO + 10**9, np.uint64),
    )
    later = sample(
        rng,
        30,
        cluster=np.arange(30, dtype=np.uint64),
        time_unix_nano=np.full(30, START_UNIX_NANO + 11 * 10**9, np.uint64),
    )
    reservoir, rows = gathered(burst, later)
    assert reservoir.units() == len(rows) == 60
    assert sorted(rows.cluster.tolist()) == sorted(list(range(30)) * 2)


def test_a_tenant_with_most_requests_has_as_many_rows_as_any_other():
    rng = np.random.default_rng(2)
    cluster = np.where(rng.random(50_000) < 0.9, 1, rng.integers(2, 2**62, 50_000)).astype(np.uint64)
    _, rows = gathered(sample(rng, 50_000, cluster=cluster, hours=(0, 1)))
    # 360 windows of the one tenant among about 5,000 units of others
    assert 0.03 < np.mean(rows.cluster == 1) < 0.12


def test_beyond_its_capacity_the_sample_stays_uniform_over_time_and_knows_how_many_there_were():
    rng = np.random.default_rng(3)
    reservoir, rows = gathered(
        *(sample(rng, 1000, hours=(hour, hour + 1)) for hour in range(20)), capacity=2000
    )
    assert len(rows) == 2000
    assert abs(reservoir.units() / 20_000 - 1) < 0.08
    by_hour = np.bincount(
        ((rows.time_unix_nano - START_UNIX_NANO) // (3600 * 10**9)).astype(int), minlength=20
    )
    assert by_hour.min() > 60
    assert by_hour.max() < 145
    assert 0.45 < rows.fit.mean() < 0.55


def test_signals_that_appear_later_are_kept_and_were_not_measured_before():
    rng = np.random.default_rng(4)
    reservoir, _ = gathered(sample(rng, 20, rng.random((20, 2))), sample(rng, 30, rng.random((30, 3))))
    rows = reservoir.gathered().rows
    assert rows.features.shape == (50, 3)
    assert np.count_nonzero(np.isnan(rows.features[:, 2])) == 20


def test_of_many_projected_layers_the_middle_and_the_last_are_kept():
    rng = np.random.default_rng(5)
    many = sample(
        rng, 40, projection_layers=tuple(range(32)), projection=rng.random((40, 1024)).astype(np.float32)
    )
    reservoir, rows = gathered(many)
    assert reservoir.layers == (16, 31)
    place = {seed: i for i, seed in enumerate(many.cluster.tolist())}
    order = [place[cluster] for cluster in rows.cluster.tolist()]
    np.testing.assert_array_equal(rows.projection, many.projection[order][:, np.r_[512:544, 992:1024]])


def test_whitened_healthy_projections_are_round():
    rng = np.random.default_rng(6)
    mixed = rng.standard_normal((4000, 12)) @ rng.standard_normal((12, 12)) * 10 + 3
    coordinates = fit_space(mixed).whiten(mixed)
    np.testing.assert_allclose(np.cov(coordinates.T), np.eye(12), atol=0.2)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 300])
def test_a_singular_covariance_gives_finite_coordinates(count):
    rng = np.random.default_rng(7)
    projection = np.repeat(rng.standard_normal((count, 2)), 3, axis=1)
    projection[:, 4] = 7.0
    coordinates = fit_space(projection).whiten(projection + 1e-3)
    assert np.isfinite(coordinates).all()
    assert np.abs(coordinates).max(initial=0) < 100


def test_classes_find_the_kinds_of_input_and_requests_outside_them():
    rng = np.random.default_rng(8)
    truth = rng.integers(0, 4, 4000)
    one = sample(rng, 4000, class_id=truth)
    classes = fit_classes(one.projection, rng.random(4000) < 0.5, 0)
    found, _ = classes.nearest(one.projection)
    table = np.zeros((len(classes), 4))
    np.add.at(table, (found, truth), 1)
    assert 8 <= len(classes) <= 16
    assert table.max(axis=1).sum() > 0.98 * 4000  # each class has requests of one kind
    healthy = sample(rng, 4000)
    assert 0.003 < np.mean(classes.nearest(healthy.projection)[1] > classes.limit) < 0.03
    novel = (rng.standard_normal((500, 64)) - 6 * CENTRES[1]).astype(np.float32)
    assert np.mean(classes.nearest(novel)[1] > classes.limit) > 0.95


def test_a_decoded_row_has_the_class_of_its_prompt_and_none_if_that_is_not_known():
    rng = np.random.default_rng(9)
    truth = rng.integers(0, 4, 2000)
    prompts = sample(rng, 2000, class_id=truth)
    # Decoded rows whose own projections say nothing.
    blank = np.zeros((2000, 64), np.float32)
    decoded = sample(rng, 2000, kind=Kind.DECODED, class_id=truth, seed=prompts.seed, projection=blank)
    of = reference(prompts, decoded)
    population = of.populations[Kind.DECODED]
    assert np.mean(population.class_id >= 0) > 0.85
    placer = Placer(of)
    live = sample(rng, 300)
    answers = sample(rng, 300, kind=Kind.DECODED, seed=live.seed, projection=blank[:300])
    unknown = placer.place(answers)
    assert (unknown.class_id == NO_CLASS).all()
    assert not unknown.outside.any()
    prompt_placed = placer.place(live)
    placed = placer.place(answers)
    known = placed.class_id != NO_CLASS
    assert known.mean() > 0.97  # the memory is of fixed size
    np.testing.assert_array_equal(placed.class_id[known], prompt_placed.class_id[known])
    again = Placer(of)
    again.restore(placer.snapshot())
    np.testing.assert_array_equal(again.place(answers).cell, placed.cell)
    found = Bank(of).evidence(answers, unknown)
    assert np.all(found.x.mean(axis=0) <= found.bound)


def test_cells_have_enough_rows_and_every_request_has_one():
    rng = np.random.default_rng(10)
    one = sample(rng, 4000, class_id=rng.choice(4, 4000, p=[0.6, 0.3, 0.09, 0.01]))
    classes = fit_classes(one.projection, np.ones(4000, bool), 0)
    class_id, _ = classes.nearest(one.projection)
    bins = length_bin(one.length)
    cells = fit_cells(class_id, bins, classes, 500)
    _, cell = members(cells, class_id, bins)
    assert np.bincount(cell).min() >= 500
    assert np.bincount(cell).sum() == 8000
    assert cells.shape == (len(classes) + 1, 32)


def test_lengths_are_binned_by_powers_of_two():
    lengths = np.array([0, 1, 2, 3, 4, 1023, 1024, 2**40])
    assert length_bin(lengths).tolist() == [0, 0, 1, 1, 2, 9, 10, 31]


def test_without_projections_all_requests_are_compared_with_all():
    rng = np.random.default_rng(11)
    one = sample(rng, 900, projection_layers=(), projection=np.zeros((900, 0), np.float32))
    of = reference(one)
    assert len(of.classes) == len(no_classes()) == 0
    live = sample(rng, 900, projection_layers=(), projection=np.zeros((900, 0), np.float32))
    placed = Placer(of).place(live)
    assert (placed.class_id == NO_CLASS).all()
    found = Bank(of).evidence(live, placed)
    assert np.all(found.x.mean(axis=0) <= found.bound)


def test_segments_as_they_come_off_the_log_make_a_reference_and_are_compared_with_it():
    rng = np.random.default_rng(12)
    schemas = [fleet.schema(fleet.Shape(), kind) for kind in KINDS]

    def live(rows):
        tables = [fleet.table(schema, rows, rng, time_unix_nano=START_UNIX_NANO) for schema in schemas]
        return [one for table in tables for _, one in samples(table)]

    of = reference(*live(1500))
    assert set(of.populations) == set(KINDS)
    for one in live(4000):
        found = Bank(of).evidence(one, Placer(of).place(one))
        assert len(found.streams) == 4 * len(one.names)
        assert np.isfinite(found.x).any()
        assert np.all(np.nan_to_num(found.x).mean(axis=0) <= found.bound)

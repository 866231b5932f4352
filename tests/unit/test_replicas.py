"""Claims on the comparison of replicas with one another, whatever each of them is sent."""

import numpy as np
import pytest

from introspan_collector.detect.live.replicas import Replicas
from introspan_collector.detect.sample import Feature
from introspan_wire.signals import Kind
from tests.samples import IDENTITY

NAMES = (Feature("residual.turn", 3), Feature("output.entropy", -1))
BOUND = 1 / 16


def found(rng, shift=0.0, requests=(20, 40, 9), shares=((1.0,), (1.0,), (1.0,)), offset=(0.0,), count=300):
    """X of each replica, "highest" in the first feature, float64 [ticks, R]; NaN where nothing is said.

    shift: of the second replica. shares: of the cells in what each replica is sent. offset: of U in each cell, an error
    of the reference.
    """
    replicas = Replicas(IDENTITY, Kind.PROMPT, NAMES)
    x = np.full((count, len(requests)), np.nan)
    for tick in range(count):
        for i, (n, share) in enumerate(zip(requests, shares, strict=True)):
            cell = rng.choice(len(offset), n, p=share)
            u = rng.uniform(size=(n, 2)) ** (1 / (1 + shift * (i == 1)))
            cluster = rng.integers(0, 2**63, n).astype(np.uint64)
            replicas.add(f"r{i}", u + np.array(offset)[cell, None], cell, cluster)
        for evidence in replicas.tick(tick):
            assert (evidence.bound == BOUND).all()
            x[tick, int(evidence.streams[0].replica[1:])] = evidence.x[0, 0]
    return x


def error(x):
    """Three standard errors of the means of X."""
    return 3 * np.nanstd(x, axis=0) / np.sqrt(np.isfinite(x).sum(axis=0))


def test_alike_replicas_are_the_highest_equally_often_however_many_requests_each_has():
    x = found(np.random.default_rng(6), count=2000)
    assert (np.abs(np.nanmean(x, axis=0) - BOUND) < error(x)).all()


@pytest.mark.thorough
@pytest.mark.parametrize("requests", [(60, 60), (64,) * 20])
def test_alike_replicas_stay_at_the_bound_where_routers_send_each_another_mixture(requests):
    """The error of a reference, the same in every request of a cell, is no difference between replicas."""
    mixed = [(0.8, 0.2) if i % 2 else (0.2, 0.8) for i in range(len(requests))]
    x = found(np.random.default_rng(8), requests=requests, shares=mixed, offset=(0.0, 0.2), count=400)
    assert np.isfinite(x).all()
    assert (np.abs(np.mean(x, axis=0) - BOUND) < error(x)).all()


def test_replicas_that_share_no_cell_are_not_compared():
    x = found(np.random.default_rng(9), requests=(60, 60), shares=((1.0, 0.0), (0.0, 1.0)), offset=(0.0, 0.1))
    assert np.isnan(x).all()


def test_a_sick_replica_is_the_highest_far_more_often():
    x = found(np.random.default_rng(7), shift=1.0)
    assert (x[:, 1] > 0).mean() > 0.7


def test_a_sick_replica_among_many_with_mixtures_of_their_own_is_found():
    mixed = [(0.8, 0.2) if i % 2 else (0.2, 0.8) for i in range(20)]
    x = found(
        np.random.default_rng(10), shift=1.0, requests=(64,) * 20, shares=mixed, offset=(0.0, 0.2), count=50
    )
    assert (x[:, 1] == 1.0).mean() > 0.9


def test_one_replica_alone_or_with_too_few_requests_beside_it_says_nothing():
    replicas = Replicas(IDENTITY, Kind.PROMPT, NAMES)
    replicas.add("r0", np.full((20, 2), 0.5), np.zeros(20, np.intp), np.arange(20, dtype=np.uint64))
    replicas.add("r1", np.full((7, 2), 0.5), np.zeros(7, np.intp), np.arange(20, 27, dtype=np.uint64))
    assert not list(replicas.tick(1))
    assert not list(replicas.tick(2))


def test_a_caller_counts_once_in_a_tick_however_many_requests_and_replicas_it_has():
    replicas = Replicas(IDENTITY, Kind.PROMPT, NAMES)
    for replica in ("r0", "r1"):
        for _ in range(3):
            replicas.add(
                replica, np.full((40, 2), 0.5), np.zeros(40, np.intp), np.arange(40, dtype=np.uint64) % 15
            )
    assert not list(replicas.tick(1)), "fifteen callers are not eight for each of two"

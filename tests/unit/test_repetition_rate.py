"""Answers that repeat themselves more often than those of the reference."""

import numpy as np
import pytest

from bench.fleet import Shape, schema, table
from introspan_collector.detect.live.repetition import Repetition, can_repeat
from introspan_collector.detect.live.yardstick import Yardstick
from introspan_collector.detect.reference.builder import Builder
from introspan_collector.detect.reference.reference import State
from introspan_collector.detect.sample import REPETITION, Feature, samples
from introspan_wire.signals import Kind
from tests.samples import IDENTITY, sample

NAMES = (Feature("residual.log_rms", 0), REPETITION)


def answers(rng, count, share, tail=90):
    """Decoded rows of which a share has a periodic tail of so many tokens."""
    tails = np.where(rng.random(count) < share, tail, 0)
    values = np.stack([rng.standard_normal(count), tails], axis=1)
    return sample(rng, count, values, kind=Kind.DECODED, names=NAMES)


def reference(rng, count, share, tail=90, seed=0):
    builder = Builder(IDENTITY, seed=seed)
    builder.add(answers(rng, count, share, tail))
    return builder.reference(State.FROZEN, 0)


def test_one_answer_in_fifty_that_loops_is_beyond_the_bound_where_none_did():
    rng = np.random.default_rng(1)
    found = Repetition(reference(rng, 4096, 0.0)).evidence(answers(rng, 20_000, 0.02))
    assert found.x.mean() > 3 * found.bound[0]
    assert [stream[3:] for stream in found.streams] == [
        ("repetition", "decoded", "output.repetition", -1, "loops")
    ]


@pytest.mark.parametrize("share", [0.0, 0.004, 0.2])
def test_what_repeats_as_often_as_in_the_reference_is_within_the_bound(share):
    for i in range(30):
        rng = np.random.default_rng([2, i])
        found = Repetition(reference(rng, 1000, share, seed=i)).evidence(answers(rng, 5000, share))
        assert found.x.mean() <= found.bound[0]


def test_where_tables_are_common_only_longer_tails_count():
    rng = np.random.default_rng(3)
    of = Repetition(reference(rng, 4096, 0.2, tail=300))
    assert of.evidence(answers(rng, 500, 1.0, tail=300)).x.mean() == 0
    assert of.evidence(answers(rng, 500, 1.0, tail=301)).x.mean() == 1


def test_short_tails_are_no_loops():
    rng = np.random.default_rng(4)
    assert Repetition(reference(rng, 1000, 0.0)).evidence(answers(rng, 500, 1.0, tail=63)).x.mean() == 0


def test_without_a_measured_tail_there_is_no_evidence():
    rng = np.random.default_rng(5)
    of = reference(rng, 1000, 0.0)
    blind = sample(rng, 9, np.zeros((9, 1)), kind=Kind.DECODED, names=NAMES[:1])
    assert np.isnan(Repetition(of).evidence(blind).x).all()
    builder = Builder(IDENTITY)
    builder.add(blind)
    assert not can_repeat(builder.reference(State.FROZEN, 0))
    assert "repetition" in {
        one.streams[0].detector for one in Yardstick(of).see(answers(rng, 9, 0.0), "r").evidence
    }


def test_tails_are_compared_in_decoded_rows_alone():
    shape = Shape(residual_layers=(0,), attention_layers=(0,), projection_layers=(0,), heads=2)
    tables = (
        table(schema(shape, kind), 30, np.random.default_rng(6), time_unix_nano=1)
        for kind in (Kind.PROMPT, Kind.DECODED)
    )
    names = {one.kind: one.names for of in tables for _, one in samples(of)}
    assert REPETITION in names[Kind.DECODED]
    assert REPETITION not in names[Kind.PROMPT]

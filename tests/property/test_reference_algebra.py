"""The algebra of references: what is kept does not depend on how requests arrive, nor evidence on who asks."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings
from hypothesis.extra import numpy as npst

from introspan_collector.detect.live.bank import Bank
from introspan_collector.detect.live.extremes import Extremes
from introspan_collector.detect.reference.builder import KINDS, Builder
from introspan_collector.detect.reference.file import content_hash, from_bytes, to_bytes
from introspan_collector.detect.reference.placement import Placer
from introspan_collector.detect.reference.reference import State
from introspan_collector.detect.reference.reservoir import Reservoir
from introspan_wire.signals import Kind
from tests.samples import IDENTITY, START_UNIX_NANO, sample

UNHURRIED = settings(deadline=None, max_examples=40)
FLOATS = st.one_of(st.floats(width=32), st.sampled_from([0.0, -0.0, 1.0, float("nan"), float("inf")]))


@st.composite
def samples(draw, most=30):
    count = draw(st.integers(1, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = draw(npst.arrays(np.float32, (count, 3), elements=FLOATS))
    hour = draw(st.integers(0, 3))
    projection = rng.standard_normal((count, 64)).astype(np.float32)
    odd = rng.random((count, 64)) < draw(st.sampled_from([0.0, 0.02, 1.0]))
    projection[odd] = draw(FLOATS)
    return sample(
        rng,
        count,
        values,
        kind=draw(st.sampled_from(KINDS)),
        projection=projection,
        cluster=rng.integers(0, 8, count).astype(np.uint64),
        time_unix_nano=np.full(count, START_UNIX_NANO + hour * 10**10, np.uint64),
        seed=rng.integers(0, 2**63, count).astype(np.uint64),
    )


def kept(pieces, capacity):
    reservoir = Reservoir(Kind.PROMPT, capacity)
    for piece in pieces:
        reservoir.add(piece, np.zeros((len(piece), 0), np.float32))
    return reservoir.gathered().rows


@UNHURRIED
@given(samples(), st.integers(1, 12), st.randoms(use_true_random=False), st.integers(1, 7))
def test_what_is_kept_depends_neither_on_order_nor_on_batches_nor_on_repetition(one, capacity, random, size):
    order = list(range(len(one))) * 2
    random.shuffle(order)
    pieces = [one.take(np.array(order[i : i + size])) for i in range(0, len(order), size)]
    whole, cut = kept([one], capacity), kept(pieces, capacity)
    for field in ("unit", "row", "cluster", "length", "features", "projection"):
        np.testing.assert_array_equal(getattr(whole, field), getattr(cut, field))
    assert len(np.unique(whole.unit)) == len(whole) <= capacity


@UNHURRIED
@given(st.lists(samples(), min_size=1, max_size=4), samples())
def test_any_traffic_makes_a_reference_that_survives_export_and_gives_evidence_within_its_range(parts, live):
    builder = Builder(IDENTITY)
    for part in (*parts, live):  # live as well, so that the reference has its kind
        builder.add(part)
    of = builder.reference(State.PROVISIONAL, 0)
    again = from_bytes(to_bytes(of), IDENTITY)
    assert content_hash(again) == content_hash(of)
    found = []
    for reference in (of, again):
        placement = Placer(reference).place(live)
        found += [detector(reference).evidence(live, placement) for detector in (Bank, Extremes)]
    for ours, theirs in zip(found[:2], found[2:], strict=True):
        np.testing.assert_array_equal(ours.x, theirs.x)
        measured = ours.x[~np.isnan(ours.x)]
        assert np.all((measured >= 0) & (measured <= 1))
        assert np.all((ours.bound > 0) & (ours.bound <= 1))
        assert ours.x.shape == (len(live), len(ours.streams))

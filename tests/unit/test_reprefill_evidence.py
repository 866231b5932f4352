"""What the collector makes of requests that a server sent itself again."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from introspan_collector.detect.detector import Detector
from introspan_collector.detect.incident.finding import Subject
from introspan_collector.detect.incident.incident import alertname
from introspan_collector.detect.incident.triage import Verdict
from introspan_collector.detect.live.reprefill import DETECTOR, PAGE_RATIO, SIGNAL, Reprefill
from introspan_collector.detect.reference.reference import Identity
from introspan_collector.detect.sequential.tolerance import tail_bound
from introspan_collector.detect.settings import DetectSettings
from introspan_collector.layout import layout
from introspan_collector.model import Batch, Origin
from introspan_wire.codec import Column, Schema, SegmentTable, decode_table, encode_table
from introspan_wire.signals import Kind, Statistic

LAYERS = (15, 28)
FEWEST = 40
SECOND_NANO = 10**9
SCHEMA = Schema(Kind.REPREFILL, tuple(Column(SIGNAL, Statistic.LAST, layer) for layer in LAYERS))
ORIGIN = Origin("vllm", "m", "replica-0", "f", "vllm", "0.32.0", "float32", 30, 9, "0")
IDENTITY = Identity.of(ORIGIN, "")


def table(distances, clusters=None, schema=SCHEMA, adapter=""):
    values = np.asarray(distances, np.float32).reshape(-1, len(schema.columns))
    n = len(values)
    ones = np.ones(n, np.uint32)
    return SegmentTable(
        schema=schema,
        request_id=[f"r{i}" for i in range(n)],
        trace_id=np.full((n, 16), 7, np.uint8),
        span_id=np.zeros((n, 8), np.uint8),
        cluster_key=np.arange(n, dtype=np.uint64)
        if clusters is None
        else np.array(list(clusters), np.uint64),
        adapter=[adapter] * n,
        segment_index=ones * 0,
        token_start=ones * 20,
        token_count=ones,
        measured_count=ones,
        prompt_tokens=ones * 10,
        cached_tokens=ones * 0,
        time_unix_nano=np.full(n, SECOND_NANO, np.uint64),
        sampling_probability=np.ones(n, np.float32),
        values=values,
    )


def see(reprefill, of, identity=IDENTITY, at=0, *, is_healthy=True):
    return reprefill.see(
        identity, "replica-0", of, np.arange(len(of)), at * SECOND_NANO, is_healthy=is_healthy
    )


def healthy(n, seed=0, scale=1e-3):
    return scale * np.exp(0.3 * np.random.default_rng(seed).standard_normal((n, len(LAYERS))))


@pytest.fixture
def learnt():
    reprefill = Reprefill(FEWEST)
    assert see(reprefill, table(healthy(FEWEST))) is None
    return reprefill


def test_healthy_ones_are_no_evidence_and_broken_ones_are(learnt):
    still = see(learnt, table(healthy(30, seed=1)))
    assert (still.evidence.x == 0).all()
    assert still.exemplar is None
    moved = see(learnt, table([[1e-3, 0.4], [0.2, 1e-3], [np.nan, 0.4]]))
    assert np.array_equal(moved.evidence.x, np.tile([[0, 1], [1, 0], [np.nan, 1]], 2), equal_nan=True)
    assert [(s.detector, s.replica, s.side, s.layer) for s in moved.evidence.streams] == [
        (DETECTOR, "replica-0", side, layer) for side in ("high", "highest") for layer in LAYERS
    ]
    assert moved.exemplar.request_id in ("r0", "r2")
    assert moved.exemplar.score > 10


def test_the_bounds_are_those_of_a_tail_and_of_the_largest_of_so_many(learnt):
    judged = see(learnt, table(healthy(1)))
    tail, largest = (tail_bound(rank, FEWEST, 0.01 / 4) for rank in (FEWEST // 20, 1))
    assert judged.evidence.bound.tolist() == [tail, tail, largest, largest]


def test_the_cut_of_a_tail_is_below_that_of_the_largest(learnt):
    ordered = np.sort(healthy(FEWEST), axis=0)
    between = 2 * np.sqrt(ordered[-1] * ordered[-(FEWEST // 20)])
    assert see(learnt, table([between])).evidence.x.tolist() == [[1, 1, 0, 0]]


def test_a_wrong_block_is_seen_beside_the_rounding_of_bfloat16():
    """As both were measured: largest of few healthy ones 0.017; least of those with a wrong block 0.038."""
    reprefill = Reprefill(FEWEST)
    identity = replace(IDENTITY, dtype="bfloat16")
    see(reprefill, table(healthy(FEWEST, scale=0.009)), identity=identity)
    evidence = see(reprefill, table([[0.0468, 0.0384], [0.0517, 0.0576]]), identity=identity).evidence
    assert (evidence.x[:, :2] == 1).all()
    assert (see(reprefill, table([[0.017, 0.017]]), identity=identity).evidence.x == 0).all()


def test_the_share_of_healthy_ones_beyond_the_cut_keeps_to_its_bound():
    """Over many draws of what is learnt, of distances whose spread is as wide as a decade."""
    beyond, bound = [], np.zeros(4)
    for seed in range(200):
        reprefill = Reprefill(FEWEST)
        see(reprefill, table(np.exp(2.3 * np.random.default_rng(seed).standard_normal((FEWEST, 2)))))
        new = np.exp(2.3 * np.random.default_rng(1000 + seed).standard_normal((400, 2)))
        evidence = see(reprefill, table(new)).evidence
        beyond.append(evidence.x.mean(axis=0))
        bound = evidence.bound
    assert np.mean(np.array(beyond) <= bound) >= 0.99


def test_two_requests_in_a_row_far_beyond_every_healthy_one_page_and_one_does_not(learnt):
    largest = healthy(FEWEST).max(axis=0)
    near, far = 0.99 * PAGE_RATIO * largest, 1.01 * PAGE_RATIO * largest * [0, 1]
    unknown = [np.nan, np.nan]

    def pages(*distances, replica="replica-0"):
        judged = learnt.see(
            IDENTITY, replica, table(distances), np.arange(len(distances)), 0, is_healthy=True
        )
        return judged.pages

    assert not pages(near, near, near)
    assert not pages(far, near, far)
    assert not pages(far, replica="replica-1"), "each replica for itself"
    assert pages(far), "with the one before"
    assert not pages(near)
    assert pages(near, far, unknown, far)
    assert pages(unknown, far)
    judged = see(learnt, table([2 * far]))
    assert (judged.stream.layer, judged.stream.side) == (LAYERS[1], "highest")
    assert judged.ratio == pytest.approx(2.02 * PAGE_RATIO)


def test_rounding_of_another_size_is_no_fault():
    """Where all that was learnt is equal to the last bit, others in the batch may change the last bits."""
    reprefill = Reprefill(FEWEST)
    see(reprefill, table(np.zeros((FEWEST, 2))))
    assert (see(reprefill, table([[3e-6, 3e-6]])).evidence.x == 0).all()
    assert (see(reprefill, table([[1e-4, 1e-4]])).evidence.x == 1).all()


def test_one_caller_counts_once_in_ten_seconds():
    reprefill = Reprefill(FEWEST)
    for second in range(10):
        see(reprefill, table(healthy(FEWEST), clusters=[5] * FEWEST), at=second)
    assert reprefill.progress() == {IDENTITY: (1, FEWEST)}
    see(reprefill, table(healthy(3), clusters=[5, 6, 7]), at=10)
    assert reprefill.progress() == {IDENTITY: (4, FEWEST)}


def test_nothing_is_learnt_while_something_is_the_matter_nor_of_what_is_not_finite():
    reprefill = Reprefill(FEWEST)
    see(reprefill, table(healthy(FEWEST)), is_healthy=False)
    see(reprefill, table([[np.nan, 1e-3]]))
    assert reprefill.progress() == {IDENTITY: (0, FEWEST)}


def test_another_model_begins_anew_and_models_are_bounded(learnt):
    for i in range(100):
        other = Identity("m", f"f{i}", "vllm", "0.32.0", "float32", "", 30)
        assert see(learnt, table([[0.4, 0.4]]), identity=other) is None
    assert len(learnt.progress()) == 64
    assert IDENTITY not in learnt.progress()


def test_people_may_say_that_it_is_healthy_as_it_is(learnt):
    learnt.forget("m", "another adapter")
    assert see(learnt, table([[0.4, 0.4]])) is not None
    learnt.forget("m", "")
    assert see(learnt, table([[0.4, 0.4]])) is None


def test_state_survives_a_restart(learnt):
    half, again = Reprefill(FEWEST), Reprefill(FEWEST)
    see(half, table(healthy(10)), at=3)
    again.restore(half.snapshot())
    see(again, table(healthy(10)), at=4)
    assert again.progress() == {IDENTITY: (10, FEWEST)}, "callers that were counted are known"
    again.restore(learnt.snapshot())
    assert (see(again, table([[0.4, 0.4]])).evidence.x == 1).all()
    with pytest.raises(ValueError, match="damaged"):
        again.restore(learnt.snapshot()[:-1])


def test_the_wire_and_the_aggregates_know_the_kind():
    sent = decode_table(encode_table(table([[1e-3, 2e-3]])))
    assert sent.schema == SCHEMA
    assert layout(SCHEMA).groups == tuple((SIGNAL, layer) for layer in LAYERS)


class Watched:
    """A detector whose clock is the test's."""

    def __init__(self):
        self.now, self.told, self.offsets = 1e6, [], itertools.count()
        settings = DetectSettings(
            tick_seconds=1.0, provisional_clusters=FEWEST, frozen_clusters=FEWEST, quiet_requests=10
        )
        self.detector = Detector(settings, self.told.append, clock=lambda: self.now)

    def send(self, *tables):
        offset = next(self.offsets)
        received = int(self.now * 1e9)
        self.detector.consume(
            Batch(offset, offset + 1, received, bytes(16), offset + 1, ORIGIN, tables, None)
        )
        self.now += 1.1
        self.detector.advance()


def compared(i, scale=1e-3):
    """Eight comparisons of callers that were not seen before."""
    return table(healthy(8, seed=i, scale=scale), clusters=range(8 * i, 8 * i + 8))


def traffic(n, first=0):
    schema = Schema(Kind.PROMPT, (Column("output.entropy", Statistic.LAST),))
    values = 2.0 + 0.1 * np.random.default_rng(first).standard_normal((n, 1))
    return table(values, clusters=range(first, first + n), schema=schema)


def test_a_broken_cache_becomes_an_incident_that_says_so_and_healthy_traffic_none():
    watched = Watched()
    for i in range(20):
        watched.send(traffic(8), compared(i))
    assert watched.detector.incidents.open() == ()
    for i in range(20):
        watched.send(traffic(8), compared(i, scale=0.4))
    (incident,) = watched.detector.incidents.open()
    assert incident.triage.verdict is Verdict.MODEL
    assert "cache of keys and values" in " ".join(incident.triage.reasons)
    strongest = incident.evidence[0]
    assert strongest.stream.detector == DETECTOR
    assert alertname(strongest.stream) == "IntrospanConsistencyFails"
    assert "that replica-0 decoded differ from the same ones prefilled" in strongest.sentence
    assert incident.exemplars[0].feature.startswith(f"{SIGNAL} at layer ")


def test_what_is_far_beyond_every_healthy_one_pages_before_the_tick_is_over():
    watched = Watched()
    for i in range(20):
        watched.send(traffic(8), compared(i))
    batch = Batch(99, 100, int(watched.now * 1e9), bytes(16), 100, ORIGIN, (table([[0.4, 1e-3]] * 2),), None)
    watched.detector.consume(batch)
    (incident,) = watched.detector.incidents.open()
    assert (incident.severity.value, incident.alertname) == ("critical", "IntrospanConsistencyFails")
    assert "layer 15" in incident.evidence[0].sentence
    assert incident.guarantee.startswith("No rate of false alarms is stated")
    assert incident.exemplars[0].request_id == "r0"


def test_who_promotes_a_reference_while_requests_differ_from_themselves_says_that_this_is_healthy():
    watched = Watched()
    for i in range(40):
        watched.send(traffic(8, first=8 * i), compared(i, scale=1e-3 if i < 20 else 0.4))
    detector = watched.detector
    assert detector.incidents.open()
    assert detector._pieces.reprefill.progress() == {IDENTITY: (FEWEST, FEWEST)}
    detector.promote(Subject("m", ""))
    assert detector.incidents.open() == ()
    for i in range(40, 60):
        watched.send(traffic(8, first=8 * i), compared(i, scale=0.4))
    assert detector.incidents.open() == ()


def test_comparisons_enter_no_reference_and_are_evidence_of_no_other_detector():
    with_us, without = Watched(), Watched()
    for i in range(30):
        with_us.send(traffic(8), compared(i))
        without.send(traffic(8))
    ours, theirs = (
        {stream.detector for stream in one.detector._pieces.roster.streams} for one in (with_us, without)
    )
    assert ours - theirs == {DETECTOR}
    assert with_us.detector.progress() == without.detector.progress() != {}


def test_comparisons_of_a_model_without_traffic_are_left_alone():
    watched = Watched()
    watched.send(table(healthy(FEWEST)))
    assert watched.detector._pieces.reprefill.progress() == {}

"""Whatever is under way when the collector is killed: what it saved before goes on as if nothing had happened."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from introspan_collector.detect.canary.rounds import Canaries
from introspan_collector.detect.detector import Detector
from introspan_collector.detect.live.replicas import Replicas
from introspan_collector.detect.sample import Feature
from introspan_collector.detect.settings import DetectSettings
from introspan_collector.detect.wholes import Wholes
from introspan_wire.signals import Kind
from tests.batches import Traffic
from tests.canary_rounds import Fault, Model, output_batch, state_batch
from tests.samples import IDENTITY
from tests.workers import spread

ROUNDS = 4
FEW = settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


def halves(count, faults=()):
    """The halves of rounds of a canary in the order in which they may come, and when: a worker's may be late."""
    rng = np.random.default_rng(4)
    found = []
    for number in range(count):
        now = 1_000.0 + 10.0 * number
        fault = Fault(5, 0.0) if number in faults else Fault()
        for i, answer in enumerate(Model().round(rng, 1 + number, fault).values()):
            found.append((now + i, output_batch(answer, now + i)))
            late = now + i + float(rng.choice([-0.5, 0.2, 3.0, 12.0]))
            if rng.random() < 0.95:
                parts = (slice(0, 3), slice(3, None)) if rng.random() < 0.3 else (slice(None),)
                found += [(late, state_batch(answer, late, rows)) for rows in parts]
    return sorted(found, key=lambda pair: pair[0])


@pytest.fixture(scope="module")
def canary_halves():
    return halves(ROUNDS + 5, faults=(ROUNDS + 2, ROUNDS + 3))


def hear(canaries, some):
    """The rounds that these finish, by what came of them."""
    finished = []
    for now, batch in some:
        canaries.consume(batch)
        finished += canaries.advance(int(now * 1e9))
    return [(one.name, one.replica, one.comparison, one.in_a_row) for one in finished]


@given(st.data())
@FEW
def test_canaries_restored_between_any_two_halves_of_answers_go_on_bit_by_bit(canary_halves, data):
    at = data.draw(st.integers(0, len(canary_halves)))
    whole, first, second = (Canaries(ROUNDS) for _ in range(3))
    expected = hear(whole, canary_halves)
    before = hear(first, canary_halves[:at])
    second.restore(first.snapshot())
    assert second.snapshot() == first.snapshot()
    assert (second.wanted("m"), before) == (first.wanted("m"), expected[: len(before)])
    assert before + hear(second, canary_halves[at:]) == expected
    assert len(expected) >= ROUNDS
    assert second.snapshot() == whole.snapshot()


NAMES = (Feature("residual.turn", 3), Feature("output.entropy", -1))


@st.composite
def lives_of_replicas(draw):
    """Requests of replicas, and ticks that close."""
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    history = []
    for _ in range(draw(st.integers(1, 30))):
        n = draw(st.sampled_from([0, 1, 9, 30]))
        replica = draw(st.sampled_from(["r0", "r1", "r2", "tick"]))
        clusters = rng.integers(0, draw(st.sampled_from([3, 1 << 60])), n).astype(np.uint64)
        history.append((replica, rng.random((n, 2)), rng.integers(0, 2, n), clusters))
    return history


def live(replicas, history, first=0):
    """Evidence of ticks, which are numbered."""
    found = []
    for number, (replica, u, cell, clusters) in enumerate(history, first):
        if replica == "tick":
            found += [
                (one.streams, str(one.x.tolist()), one.cluster.tolist()) for one in replicas.tick(number)
            ]
        else:
            replicas.add(replica, u, cell, clusters)
    return found


@given(lives_of_replicas(), st.data())
@settings(deadline=None)
def test_replicas_restored_anywhere_in_a_tick_give_the_same_evidence(history, data):
    at = data.draw(st.integers(0, len(history)))
    whole, first, second = (Replicas(IDENTITY, Kind.PROMPT, NAMES) for _ in range(3))
    expected = live(whole, history)
    before = live(first, history[:at])
    second.restore(first.snapshot())
    assert before + live(second, history[at:], at) == expected
    assert second.snapshot() == whole.snapshot()


PARTS = [part for i in range(4) for part in spread(Traffic(i).batch(3, 1_000.0), stages=2, ranks=1 + i % 2)]


def whole(wholes, parts, first=0):
    """What is given, by request and measured values, as parts come five seconds after one another."""
    found = []
    for i, part in enumerate(parts, first):
        now = 10**9 * (1_000 + 5 * i)
        for one in (*wholes.take(part, now), *wholes.late(now)):
            rows = zip(one.table.request_id, one.table.values.tolist(), strict=True)
            found += [str((*row, one.origin)) for row in rows]
    return found


@given(st.permutations(PARTS), st.integers(0, len(PARTS)))
@FEW
def test_parts_of_segments_are_waited_for_after_a_restart_as_before(parts, at):
    straight, first, second = Wholes(), Wholes(), Wholes()
    expected = whole(straight, parts)
    before = whole(first, parts[:at])
    second.restore(first.snapshot())
    assert (len(second), second.snapshot()) == (len(first), first.snapshot())
    assert before + whole(second, parts[at:], at) == expected
    assert second.snapshot() == straight.snapshot()


SETTINGS = DetectSettings(
    provisional_clusters=100, frozen_clusters=200, frozen_hours=0.0, canary_rounds=ROUNDS, quiet_requests=200
)


class Collector:
    """A detector and its clock; batches come at their time, and after each it does what is due."""

    def __init__(self):
        self.now = 0.0
        self.detector = Detector(SETTINGS, clock=lambda: self.now)

    def live(self, events):
        for now, batch in events:
            self.now = now
            self.detector.consume(batch)
            self.detector.advance()
        return self


@pytest.fixture(scope="module")
def day():
    """Two replicas and a canary, first healthy, then one of the replicas is not; and what is known half-way."""
    traffics = [Traffic(i, f"r{i}") for i in range(2)]
    healthy = [(800.0 + 4.0 * i, one.batch(12, 800.0 + 4.0 * i)) for i in range(40) for one in traffics]
    sick = [
        (
            1_000.0 + 4.0 * i,
            one.batch(
                12,
                1_000.0 + 4.0 * i,
                shift=2.0 * (one.replica == "r1"),
                temperature=1.0 + (one.replica == "r1"),
            ),
        )
        for i in range(40)
        for one in traffics
    ]
    events = sorted(sick + halves(ROUNDS + 2), key=lambda pair: pair[0])
    before = Collector().live(healthy).detector
    with before.still() as still:
        assert all(watch.reference is not None for watch in still.watches.values())
    return before.snapshot(), events


@pytest.mark.parametrize("part", [0.1, 0.37, 0.74])
def test_a_detector_killed_in_the_middle_of_a_tick_and_of_a_canary_s_round_says_what_it_would_have_said(
    day, part
):
    start, events = day
    at = int(part * len(events))
    whole, first, second = Collector(), Collector(), Collector()
    for one in (whole, first):
        one.detector.restore(start)
    whole.live(events)
    second.detector.restore(first.live(events[:at]).detector.snapshot())
    second.now = first.now
    second.live(events[at:])
    assert whole.detector.incidents.open(), "a replica is sick"
    assert second.detector.incidents.open() == whole.detector.incidents.open()
    assert second.detector.snapshot() == whole.detector.snapshot()

"""Laws of healthy requests in; what real detectors, ticks and the e-detector make of fleets that serve them out.

A fleet is a model with a reference of its own, built by the product of requests of the same law as those that come.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np

from introspan_collector.detect.live.bank import Bank
from introspan_collector.detect.live.drift import Drift
from introspan_collector.detect.live.extremes import Extremes
from introspan_collector.detect.live.frequencies import Frequencies
from introspan_collector.detect.live.repetition import Repetition
from introspan_collector.detect.live.replicas import Replicas
from introspan_collector.detect.reference.builder import Builder
from introspan_collector.detect.reference.placement import Placement, Placer
from introspan_collector.detect.reference.reference import Reference, State
from introspan_collector.detect.sample import REPETITION, Feature, Sample
from introspan_collector.detect.sequential.budget import shared_out
from introspan_collector.detect.sequential.e_detector import EDetector
from introspan_collector.detect.sequential.evidence import Evidence, Stream
from introspan_collector.detect.sequential.tick import FEWEST_CLUSTERS, Ticks
from introspan_wire.signals import Kind
from tests.samples import IDENTITY, sample

FLEETS = 16
TICK = 10.0
TICKS = 160
FEATURES = 8
_LOOP_SCALE = 12.0  # tokens: one healthy answer in two hundred ends in a loop of 64


def steady(_: int) -> float:
    return 10.0


def diurnal(tick: int) -> float:
    """A day of 80 ticks: from 16 sessions a tick to one in two."""
    return 8.25 + 7.75 * np.cos(2 * np.pi * tick / 80)


@dataclass(frozen=True)
class Law:
    """How healthy requests are distributed. size: of a reference; step: all values are multiples of it, 0 for none."""

    size: int = 400
    step: float = 0.0


@dataclass(frozen=True)
class Traffic:
    """How they come: sessions of so many like requests each, of which a part goes on in the tick after."""

    rate: Callable[[int], float] = steady
    burst: int = 1
    ticks: int = TICKS


@dataclass(frozen=True)
class Course:
    """What ticks have given: X̄ of each stream, float64 [ticks, S]; evidence: that of every tick as it came."""

    streams: tuple[Stream, ...]
    bound: np.ndarray
    means: np.ndarray
    evidence: list[list[Evidence]]

    def rows(self, *detectors: str) -> np.ndarray:
        return np.flatnonzero([stream.detector in detectors for stream in self.streams])


def requests(random: np.random.Generator, law: Law, count: int) -> tuple[Sample, Sample]:
    """Prompt and decoded rows of requests, each of a session of its own."""
    class_id = random.integers(0, 4, count)
    values = random.standard_normal((count, FEATURES)) + class_id[:, None] / 2
    prompt = sample(random, count, values, class_id=class_id)
    values[:, 0] = 1.0  # a signal that never varies
    values[:, 1:3] = prompt.projection[:, [0, 40]]  # and two that say what classes are told apart by
    if law.step:
        values = np.floor(values / law.step) * law.step
    prompt = replace(prompt, features=values.astype(np.float32))
    tail = np.floor(random.exponential(_LOOP_SCALE, (count, 1)))
    decoded = sample(
        random, count, tail, kind=Kind.DECODED, class_id=class_id, seed=prompt.seed, names=(REPETITION,),
        projection_layers=(), projection=np.zeros((count, 0), np.float32), cluster=prompt.cluster, length=prompt.length,
    )  # fmt: skip
    return prompt, decoded


def live(random: np.random.Generator, law: Law, traffic: Traffic) -> tuple[Sample, Sample, np.ndarray]:
    """Prompt and decoded rows of all requests in the order in which they come, and the tick of each."""
    begin = np.repeat(
        np.arange(traffic.ticks), random.poisson([traffic.rate(t) for t in range(traffic.ticks)])
    )
    size = random.geometric(1 / traffic.burst, len(begin))
    later = random.binomial(size, random.choice([0.0, 0.3], len(begin)))
    session = np.concatenate([np.repeat(np.arange(len(begin)), n) for n in (size - later, later)])
    tick = begin[session] + np.repeat([0, 1], [np.sum(size - later), np.sum(later)])
    order = np.argsort(tick, kind="stable")
    order = order[tick[order] < traffic.ticks]
    prompt, decoded = requests(random, law, len(begin))
    seed = random.integers(0, 2**63, len(order)).astype(np.uint64)
    return *(replace(one.take(session[order]), seed=seed) for one in (prompt, decoded)), tick[order]


@lru_cache(maxsize=8)
def references(law: Law) -> tuple[Reference, ...]:
    """One of each fleet."""
    found = []
    for number in range(FLEETS):
        builder = Builder(replace(IDENTITY, model=f"fleet {number}"), seed=number)
        for part in requests(np.random.default_rng([law.size, int(10 * law.step), number]), law, law.size):
            builder.add(part)
        found.append(builder.reference(State.FROZEN, 0))
    return tuple(found)


@lru_cache(maxsize=8)
def drifts(law: Law) -> tuple[tuple[Drift, bytes], ...]:
    """One of each fleet, and its state before anything was seen: what takes long is to make them."""
    found = [Drift(reference, Kind.PROMPT) for reference in references(law)]
    return tuple((drift, drift.snapshot()) for drift in found)


@lru_cache(maxsize=2)
def course(law: Law, traffic: Traffic, seed: int = 0) -> Course:
    """All fleets under this traffic, by all detectors that compare with a reference."""
    by_tick: list[list[Evidence]] = [[] for _ in range(traffic.ticks)]
    for number, reference in enumerate(references(law)):
        random = np.random.default_rng([seed, number])
        prompt, decoded, tick = live(random, law, traffic)
        starts = np.searchsorted(tick, np.arange(traffic.ticks + 1))
        for one in _compared(reference, prompt, decoded):
            for of_tick, (first, last) in zip(by_tick, pairwise(starts), strict=True):
                of_tick.append(replace(one, x=one.x[first:last], cluster=one.cluster[first:last]))
        drift, fresh = drifts(law)[number]
        drift.restore(fresh)
        placement = Placer(reference).place(prompt)
        for of_tick, (first, last) in zip(by_tick, pairwise(starts), strict=True):
            rows = np.arange(first, last)
            of_tick.append(drift.evidence(prompt.take(rows), _taken(placement, rows)))
            drift.tick()
    return gathered(by_tick)


def _compared(reference: Reference, prompt: Sample, decoded: Sample) -> Iterator[Evidence]:
    placer, bank, extremes = Placer(reference), Bank(reference), Extremes(reference)
    for part in (prompt, decoded):
        placement = placer.place(part)
        yield bank.evidence(part, placement)
        yield extremes.evidence(part, placement)
        if part.kind is Kind.PROMPT:
            yield Frequencies(reference).evidence(part, placement)
        else:
            yield Repetition(reference).evidence(part)


def _taken(placement: Placement, rows: np.ndarray) -> Placement:
    return Placement(*(getattr(placement, field.name)[rows] for field in fields(Placement)))


def gathered(by_tick: list[list[Evidence]]) -> Course:
    """What real ticks make of evidence."""
    blocks = {one.streams: one.bound for of_tick in by_tick for one in of_tick}
    first = dict(zip(blocks, np.cumsum([0, *map(len, blocks)]), strict=False))
    streams = tuple(stream for block in blocks for stream in block)
    ticks = Ticks()
    ticks.follow(streams, np.full(len(streams), FEWEST_CLUSTERS))
    ticks.close(0.0)
    means = np.full((len(by_tick), len(streams)), np.nan)
    for number, of_tick in enumerate(by_tick):
        for one in of_tick:
            ticks.add(first[one.streams] + np.arange(len(one.streams)), one.cluster[:, None], one.x)
        tick = ticks.close(TICK * (number + 1))
        if tick is not None:
            means[number] = tick.x
    return Course(streams, np.concatenate(list(blocks.values())), means, by_tick)


def alarms(found: Course, rows: np.ndarray, mean_ticks: float, bound: np.ndarray | None = None) -> np.ndarray:
    """Alarms of each fleet by these streams alone, which share its budget as the product shares it out."""
    streams = [found.streams[row] for row in rows]
    detector = _detector(streams, found.bound[rows] if bound is None else bound, mean_ticks)
    counts = np.zeros(FLEETS)
    for number, x in enumerate(found.means[:, rows], 1):
        _count(detector.update(x, TICK * number), counts)
    return counts


def alarms_by_request(found: Course, detector_name: str, mean_ticks: float) -> np.ndarray:
    """The same where every request is a step of its own."""
    rows = found.rows(detector_name)
    place = {found.streams[row]: i for i, row in enumerate(rows)}
    detector = _detector([found.streams[row] for row in rows], found.bound[rows], mean_ticks)
    counts = np.zeros(FLEETS)
    for number, of_tick in enumerate(found.evidence):
        mine = [one for one in of_tick if one.streams[0].detector == detector_name]
        # One caller's requests follow one another, as those of a burst do.
        ordered = [one.x[np.argsort(one.cluster, kind="stable")] for one in mine]
        at = [np.array([place[stream] for stream in one.streams]) for one in mine]
        most = max((len(x) for x in ordered), default=0)
        for step in range(most):
            row = np.full(len(rows), np.nan)
            for x, where in zip(ordered, at, strict=True):
                if step < len(x):
                    row[where] = x[step]
            _count(detector.update(row, TICK * (number + step / most)), counts)
    return counts


def _detector(streams: Sequence[Stream], bound: np.ndarray, mean_ticks: float) -> EDetector:
    # A fleet has the clock that it would have alone.
    detector = EDetector(mean_ticks * TICK / FLEETS)
    detector.follow(streams, bound, shared_out(streams, bound))
    detector.update(np.full(len(streams), np.nan), 0.0)
    return detector


def _count(found: Sequence, counts: np.ndarray) -> None:
    for alarm in found:
        counts[int(alarm.model.split()[1])] += 1


NAMES = (Feature("residual.turn", 3), Feature("output.entropy", -1))


def replicas_course(seed: int, burst: int, *, is_sticky: bool, clusters_count: bool = True) -> Course:
    """Fleets of three replicas that are alike, whose sessions a router sends to one replica each, or anywhere.

    The reference is off by as much as it likes, and each cell by something else. clusters_count: whether requests of
    one session are known to be of one.
    """
    by_tick: list[list[Evidence]] = [[] for _ in range(TICKS)]
    for number in range(FLEETS):
        random = np.random.default_rng([seed, number])
        replicas = Replicas(replace(IDENTITY, model=f"fleet {number}"), Kind.PROMPT, NAMES, seed=number)
        for tick, of_tick in enumerate(by_tick):
            sessions = random.poisson(40.0)
            session = np.repeat(np.arange(sessions), random.geometric(1 / burst, sessions))
            cell = random.integers(0, 2, sessions)[session]
            u = 0.8 * random.random((sessions, len(NAMES)))[session] + 0.2 * cell[:, None]
            at = (
                random.integers(0, 3, sessions)[session] if is_sticky else random.integers(0, 3, len(session))
            )
            cluster = session if clusters_count else np.arange(len(session))
            for i in range(3):
                mine = at == i
                replicas.add(f"r{i}", u[mine], cell[mine], cluster[mine].astype(np.uint64))
            of_tick.extend(replicas.tick(tick))
    return gathered(by_tick)

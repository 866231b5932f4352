"""Requests of a pool in, what the product's detector says of them over time out: delays in requests and seconds."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.faults.outputs_only import OutputsOnly
from bench.faults.pool import ORIGIN, Pool, Rows
from introspan_collector.detect.detector import Detector
from introspan_collector.detect.incident.finding import Copy, Subject
from introspan_collector.detect.reference.reference import Reference, State
from introspan_collector.detect.settings import DetectSettings
from introspan_collector.model import Batch

TICK_SECONDS = 10.0
_START_UNIX_SECONDS = 1_800_000_000.0
_AT_ONCE = 500
Random = np.random.Generator


def distinct(rng: Random, count: int) -> NDArray[np.uint64]:
    """Every request is of somebody else."""
    return rng.integers(0, 2**63, count).astype(np.uint64)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What comes. rows: which requests of the pool, given how many; a_tick: how many in each tick.

    clusters: of whom they are; change: what is done to their batch before it arrives.
    """

    rows: Callable[[Random, int], Rows]
    a_tick: int
    tick_seconds: float = TICK_SECONDS
    clusters: Callable[[Random, int], NDArray[np.uint64]] = distinct
    change: Callable[[Batch, Random], Batch] = lambda batch, _: batch


@dataclass(frozen=True, slots=True)
class Delay:
    """From the first faulty request until an alarm, healthy ones between them counted."""

    requests: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stream of requests raised, None where nothing: a first alarm, of either copy, and a page.

    carried: detectors and signals of the first.
    """

    first: Delay | None
    page: Delay | None
    carried: tuple[str, ...]


class Replay:
    """The product's detector on a clock of its own. Requests come in ticks of ten seconds, so many each."""

    def __init__(self, pool: Pool, reference: Rows, size: int, seed: int) -> None:
        """reference: rows of the pool that are drawn from for the reference, each once where size is their number."""
        self._pool = pool
        self.healthy = reference
        self.outputs: OutputsOnly | None = None
        self._now = _START_UNIX_SECONDS
        self._sent = 0
        settings = DetectSettings(provisional_clusters=size, frozen_clusters=size, frozen_hours=0.0)
        self.detector = Detector(settings, clock=lambda: self._now)
        rng = np.random.default_rng(seed)
        drawn = rng.permutation(reference) if size == len(reference) else rng.choice(reference, size)
        for start in range(0, size, _AT_ONCE):
            self._consume(drawn[start : start + _AT_ONCE], rng)
            self._now += TICK_SECONDS / 4
        self._now += TICK_SECONDS
        self.detector.advance()
        self.objections = self._freeze()
        self._now += TICK_SECONDS
        self.detector.advance()

    @property
    def reference(self) -> Reference:
        """What was frozen."""
        with self.detector.still() as still:
            found = still.watches[Subject(ORIGIN.model, "")].reference
        assert found is not None
        return found

    def follow_outputs_only(self) -> None:
        """From now on the output-only baseline is what requests go to, against the same reference."""
        self.outputs = OutputsOnly(self.reference)

    def stream(self, traffic: Traffic, ticks: int, seed: int) -> Outcome:
        """Sends requests until a page or for so many ticks. Leaves its traces: see `apart`."""
        rng = np.random.default_rng(seed)
        delays: dict[Copy, Delay] = {}
        carried: tuple[str, ...] = ()
        for tick in range(1, ticks + 1):
            self._consume(traffic.rows(rng, traffic.a_tick), rng, traffic)
            self._now += traffic.tick_seconds
            found = self._raised() if self.outputs is None else self.outputs.raised(self._now)
            if found and not delays:
                carried = tuple(sorted({name for names in found.values() for name in names}))
            for copy in found.keys() - delays.keys():
                delays[copy] = Delay(tick * traffic.a_tick, tick * traffic.tick_seconds)
            if Copy.PAGE in delays:
                break
        first = min(delays.values(), key=lambda delay: delay.seconds, default=None)
        return Outcome(first, delays.get(Copy.PAGE), carried)

    def _raised(self) -> dict[Copy, tuple[str, ...]]:
        self.detector.advance()
        found: dict[Copy, tuple[str, ...]] = {}
        for one in self.detector.incidents.open():
            for clue in one.evidence:
                found[clue.copy] = (
                    *found.get(clue.copy, ()),
                    f"{clue.stream.detector} {clue.stream.signal}".strip(),
                )
        return found

    def _freeze(self) -> tuple[str, ...]:
        """What the product holds against freezing this reference; it is frozen all the same."""
        with self.detector.still() as still:
            watch = still.watches[Subject(ORIGIN.model, "")]
            objections = tuple(objection for one in watch.building() for objection in one.objections)
            state = None if watch.reference is None else watch.reference.state
        if state is not State.FROZEN:
            self.detector.promote(Subject(ORIGIN.model, ""), force=True)
        return objections

    def _consume(self, rows: Rows, rng: np.random.Generator, traffic: "Traffic | None" = None) -> None:
        clusters = distinct if traffic is None else traffic.clusters
        batch = self._pool.batch(rows, clusters(rng, len(rows)), self._now, self._sent)
        self._sent += len(rows)
        watcher = self.detector if self.outputs is None else self.outputs
        watcher.consume(batch if traffic is None else traffic.change(batch, rng))

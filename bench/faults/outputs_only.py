"""Requests and a reference of outputs in, alarms out: the same recursion, classes, budget and T without internals.

Bank, extremes, ticks, the e-detector and the sharing of the budget are the product's own. Classes are given to
it as they are, though they come from internals.
"""

from dataclasses import replace

from bench.faults.pool import Pool
from introspan_collector.detect.incident.finding import Copy
from introspan_collector.detect.live.bank import Bank
from introspan_collector.detect.live.extremes import Extremes
from introspan_collector.detect.reference.placement import Placer
from introspan_collector.detect.reference.reference import Reference
from introspan_collector.detect.sample import samples
from introspan_collector.detect.sequential.budget import shared_out
from introspan_collector.detect.sequential.e_detector import PAGE_SECONDS, TICKET_SECONDS, EDetector
from introspan_collector.detect.sequential.evidence import OUTSIDE, Evidence
from introspan_collector.detect.sequential.roster import Roster
from introspan_collector.detect.sequential.tick import Ticks
from introspan_collector.model import Batch
from introspan_wire.codec import Schema, SegmentTable
from introspan_wire.signals import Kind

_OUTPUTS = ("output.entropy", "output.margin", "output.logprob")
_CLASSES = "residual.projection"


def without_internals(pool: Pool) -> Pool:
    """The same requests with what an API would tell of them; projections stay for the classes."""
    return replace(pool, prompt=_outputs(pool.prompt), decoded=_outputs(pool.decoded))


def _outputs(table: SegmentTable) -> SegmentTable:
    columns = table.schema.columns
    kept = [i for i, column in enumerate(columns) if column.signal in (*_OUTPUTS, _CLASSES)]
    schema = Schema(table.schema.kind, tuple(columns[i] for i in kept))
    return replace(table, schema=schema, values=table.values[:, kept])


class OutputsOnly:
    """Follows the outputs of one model against one reference."""

    def __init__(self, reference: Reference) -> None:
        self._placer = Placer(reference)
        self._bank, self._extremes = Bank(reference), Extremes(reference)
        self._roster, self._followed = Roster(), 0
        self._ticks = Ticks()
        self._copies = {Copy.TICKET: EDetector(TICKET_SECONDS), Copy.PAGE: EDetector(PAGE_SECONDS)}

    def consume(self, batch: Batch) -> None:
        """Takes requests."""
        for table in sorted(batch.tables, key=lambda table: table.schema.kind is not Kind.PROMPT):
            for _, sample in samples(table):
                placement = self._placer.place(sample)
                for evidence in (
                    self._bank.evidence(sample, placement),
                    _without_distance(self._extremes.evidence(sample, placement)),
                ):
                    rows = self._roster.rows(evidence)
                    self._follow()
                    if rows is None:
                        continue
                    self._ticks.add(rows, evidence.cluster[:, None], evidence.x)

    def raised(self, now: float) -> dict[Copy, tuple[str, ...]]:
        """Copies of the test that raise an alarm now, with the signals that carry it."""
        tick = self._ticks.close(now)
        if tick is None:
            return {}
        found = {}
        for copy, detector in self._copies.items():
            for alarm in detector.update(tick.x, now):
                found[copy] = tuple(
                    sorted({f"{one.stream.detector} {one.stream.signal}".strip() for one in alarm.carriers})
                )
        return found

    def _follow(self) -> None:
        if self._followed == self._roster.version:
            return
        self._followed = self._roster.version
        streams, bound = self._roster.streams, self._roster.bound
        self._ticks.follow(streams, self._roster.fewest_clusters)
        for detector in self._copies.values():
            detector.follow(streams, bound, shared_out(streams, bound))


def _without_distance(evidence: Evidence) -> Evidence:
    """A prompt's distance from its class is of the residual stream: only the class itself is given to outputs."""
    kept = [i for i, stream in enumerate(evidence.streams) if stream.signal != OUTSIDE]
    streams = tuple(evidence.streams[i] for i in kept)
    return Evidence(streams, evidence.bound[kept], evidence.x[:, kept], evidence.cluster)

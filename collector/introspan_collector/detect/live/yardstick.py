"""One reference in, everything that is derived from it out: requests are compared with it in every way there is."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from introspan_collector.detect import checkpoint
from introspan_collector.detect.incident.finding import Exemplar
from introspan_collector.detect.live.bank import Bank
from introspan_collector.detect.live.drift import Drift, can_drift
from introspan_collector.detect.live.extremes import Extremes
from introspan_collector.detect.live.frequencies import Frequencies
from introspan_collector.detect.live.repetition import Repetition, can_repeat
from introspan_collector.detect.live.replicas import Replicas
from introspan_collector.detect.live.window import Distance
from introspan_collector.detect.reference.file import content_hash, to_bytes
from introspan_collector.detect.reference.placement import Placer
from introspan_collector.detect.reference.reference import Reference
from introspan_collector.detect.sample import Feature, Sample
from introspan_collector.detect.sequential.evidence import Evidence
from introspan_wire.signals import Kind

DETECTORS = ("bank", "extremes", "drift", "classes", "replicas", "repetition")
"""Whose evidence is about a reference, and worth nothing once it is replaced."""

_WHAT = "a yardstick"
_VERSION = 2


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What one sample gave: blocks of evidence, and the request that is least like healthy ones, if any is known."""

    evidence: tuple[Evidence, ...]
    exemplar: Exemplar | None


class Yardstick:
    """Compares requests of the reference's model, adapter and kinds of rows with it. data: the reference's bytes."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.data = to_bytes(reference)
        self.content_hash = content_hash(reference)
        self._placer = Placer(reference)
        self._bank = Bank(reference)
        self._extremes = Extremes(reference)
        populations = reference.populations
        self._frequencies = Frequencies(reference) if Kind.PROMPT in populations else None
        self._repetition = Repetition(reference) if can_repeat(reference) else None
        self._drifts = {
            kind: Drift(reference, kind) for kind, population in populations.items() if can_drift(population)
        }
        self._replicas = {
            kind: Replicas(reference.identity, kind, population.names)
            for kind, population in populations.items()
        }
        self._ticks = 0

    def see(self, sample: Sample, replica: str) -> Seen:
        """Evidence of requests that one replica served, of a kind that the reference has."""
        placement = self._placer.place(sample)
        u = self._bank.u(sample, placement)
        score, feature = self._extremes.scored(sample, placement)
        evidence = [
            self._bank.evidence(sample, placement, u),
            self._extremes.evidence(sample, placement, score),
        ]
        if sample.kind is Kind.PROMPT and self._frequencies is not None:
            evidence.append(self._frequencies.evidence(sample, placement))
        if sample.kind is Kind.DECODED and self._repetition is not None:
            evidence.append(self._repetition.evidence(sample))
        if sample.kind in self._drifts:
            evidence.append(self._drifts[sample.kind].evidence(sample, placement))
        self._replicas[sample.kind].add(replica, u, placement.cell, sample.cluster)
        return Seen(tuple(evidence), self._exemplar(sample, score, feature, replica))

    def tick(self) -> Iterator[Evidence]:
        """Closes a tick; gives what only a whole tick shows."""
        self._ticks += 1
        for drift in self._drifts.values():
            drift.tick()
        for replicas in self._replicas.values():
            yield from replicas.tick(self._ticks)

    def distances(self) -> dict[Kind, Distance]:
        """How far the last ticks are from the reference, by kind of row: for people, see `Drift.distance`."""
        return {kind: drift.distance for kind, drift in self._drifts.items()}

    def snapshot(self) -> bytes:
        """What was seen lately; the reference itself is not part of it."""
        parts = {f"drift_{kind}": drift.snapshot() for kind, drift in self._drifts.items()}
        parts |= {f"replicas_{kind}": replicas.snapshot() for kind, replicas in self._replicas.items()}
        parts["placer"] = self._placer.snapshot()
        arrays = {name: np.frombuffer(data, np.uint8) for name, data in parts.items()}
        return checkpoint.dump(_WHAT, _VERSION, {"ticks": self._ticks}, arrays)

    def restore(self, data: bytes) -> None:
        """Puts a snapshot's state in place of this one. Raises ValueError for one that it cannot read."""
        header, arrays = checkpoint.load(_WHAT, _VERSION, data)
        self._ticks = header["ticks"]
        self._placer.restore(arrays["placer"].tobytes())
        for kind, drift in self._drifts.items():
            drift.restore(arrays[f"drift_{kind}"].tobytes())
        for kind, replicas in self._replicas.items():
            replicas.restore(arrays[f"replicas_{kind}"].tobytes())

    def _exemplar(
        self, sample: Sample, score: NDArray[np.float32], feature: NDArray[np.intp], replica: str
    ) -> Exemplar | None:
        known = np.where(np.isnan(score), np.float32(-1), score)
        row = int(known.argmax())
        if known[row] < 0:
            return None
        trace = sample.trace_id[row]
        names = self.reference.populations[sample.kind].names
        return Exemplar(
            sample.request_id[row],
            trace.tobytes().hex() if trace.any() else "",
            replica,
            _said(names[feature[row]], sample),
            float(score[row]),
            "z",
        )


def _said(feature: Feature, sample: Sample) -> str:
    where = f" at layer {feature.layer}" if feature.layer >= 0 else ""
    return f"{feature.signal}{where} of its {sample.kind.value} row"

"""Requests of a made-up model, healthy or not, in; rows of every signal, sent to a collector over gRPC, out."""

import time
from dataclasses import dataclass, replace

import numpy as np

from bench.fleet import Shape, origin, schema, table
from bench.producer import Producer
from introspan.observation import Drawn
from introspan_collector.model import ProducerStatus
from introspan_wire.signals import Kind

SHAPE = Shape(
    residual_layers=(0, 4, 8, 12, 16), attention_layers=(0, 8, 16), projection_layers=(8, 16), heads=4
)
FAULTY_LAYER = 8

_CENTRES = 3.0 * np.eye(3, 64)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with requests: where a stream is shifted, and events in their first row."""

    shift: float = 0.0
    nonfinite: float = 0.0
    repetition: float = 0.0
    mismatch: float = 0.0


HEALTHY = Fault()
BROKEN = Fault(shift=3.0, nonfinite=7.0, repetition=96.0, mismatch=1.0)


class Worker:
    """One worker of a replica: sends requests, and says of itself what its status is."""

    def __init__(self, address: str, model: str, replica: str, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._producer = Producer(address, origin(model, replica))
        self._drawn = Drawn()
        self._batches = 0
        self.status = ProducerStatus(0, 0, 0.0, (), (), 0, 0, 0, 1.0)

    def close(self) -> None:
        self._producer.__exit__(None, None, None)

    def send(self, requests: int = 20, adapter: str = "", fault: Fault = HEALTHY) -> None:
        """Requests of three classes; each gives a row of its prompt, one of decoded tokens, and one sent again."""
        self._batches += 1
        cluster = self._rng.integers(0, 2**63, requests).astype(np.uint64)
        classes = self._rng.integers(0, len(_CENTRES), requests)
        names = [f"cmpl-{number:016x}" for number in self._rng.integers(2**62, size=requests).tolist()]
        tables = [
            replace(
                self._table(kind, requests, adapter, classes, fault), request_id=names, cluster_key=cluster
            )
            for kind in (Kind.PROMPT, Kind.DECODED, Kind.REPREFILL)
        ]
        status = replace(
            self.status,
            measured_steps=8 * self._batches,
            measured_rows=16 * requests * self._batches,
            capture_seconds=0.01 * self._batches,
            sampler_tokens=self._drawn.tokens,
            sampler_low=self._drawn.low,
            sampler_high=self._drawn.high,
            sampler_sum=self._drawn.total,
        )
        self._producer.send(*tables, status=status)

    def _table(self, kind, requests, adapter, classes, fault):
        of = schema(SHAPE, kind)
        found = table(
            of, requests, self._rng, time_unix_nano=time.time_ns(), adapter=adapter, traced_share=0.5
        )
        values = found.values.copy()
        drawn = self._rng.random(requests).astype(np.float32)
        self._drawn = self._drawn.plus(drawn)
        component = 0
        for i, column in enumerate(of.columns):
            if column.signal == "residual.projection":
                values[:, i] += _CENTRES[classes, component % _CENTRES.shape[1]]
                component += 1
            elif column.signal == "sampler.pit":
                values[:, i] = drawn
            elif column.signal == "residual.log_rms" and column.layer >= FAULTY_LAYER:
                values[:, i] += fault.shift
            elif column.signal in ("output.nonfinite", "residual.nonfinite"):
                values[:1, i] = fault.nonfinite
            elif column.signal == "output.repetition":
                values[:1, i] = fault.repetition
            elif column.signal == "sampler.greedy_mismatch":
                values[:1, i] = fault.mismatch
        return replace(found, values=values)

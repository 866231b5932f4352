"""The shape of a model in, synthetic batches of a fleet that serves it out."""

from dataclasses import dataclass

import numpy as np

from introspan_collector.model import Batch, Origin, ProducerStatus
from introspan_wire.codec import Column, Schema, SegmentTable
from introspan_wire.signals import CATALOGUE, PROJECTION_COMPONENTS, Axis, Kind

SECOND_NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Shape:
    """What is measured: which layers of the residual stream, of attention and of projections, and how many heads."""

    residual_layers: tuple[int, ...] = tuple(range(0, 32, 2))
    attention_layers: tuple[int, ...] = (0, 10, 20, 30)
    projection_layers: tuple[int, ...] = (15, 30)
    heads: int = 16


def schema(shape: Shape, kind: Kind = Kind.DECODED) -> Schema:
    """Columns of every signal in the catalogue, as the SDK orders them."""
    columns: list[Column] = []
    for signal in CATALOGUE.values():
        for statistic in signal.statistics(kind):
            if not signal.axes:
                columns.append(Column(signal.name, statistic))
            elif Axis.HEAD in signal.axes:
                columns += [
                    Column(signal.name, statistic, layer, head)
                    for layer in shape.attention_layers
                    for head in range(shape.heads)
                ]
            elif Axis.COMPONENT in signal.axes:
                columns += [
                    Column(signal.name, statistic, layer, component=component)
                    for layer in shape.projection_layers
                    for component in range(PROJECTION_COMPONENTS)
                ]
            else:
                columns += [Column(signal.name, statistic, layer) for layer in shape.residual_layers]
    return Schema(kind, tuple(columns))


def table(
    of: Schema,
    rows: int,
    rng: np.random.Generator,
    *,
    time_unix_nano: int = 0,
    adapter: str = "",
    traced_share: float = 0.0,
    probability: float = 1.0,
) -> SegmentTable:
    """Segments with plausible values: each within its signal's range, counts of events all zero."""
    values = np.empty((rows, len(of.columns)), np.float32)
    for i, column in enumerate(of.columns):
        values[:, i] = _values(column.signal, rows, rng)
    traced = rng.random(rows) < traced_share
    one = np.ones(rows, np.uint32)
    return SegmentTable(
        schema=of,
        request_id=[f"chatcmpl-{number:032x}" for number in rng.integers(2**62, size=rows).tolist()],
        trace_id=rng.integers(1, 256, (rows, 16), np.uint8) * traced[:, None],
        span_id=rng.integers(1, 256, (rows, 8), np.uint8) * traced[:, None],
        cluster_key=rng.integers(2**62, size=rows).astype(np.uint64),
        adapter=[adapter] * rows,
        segment_index=one,
        token_start=one * 100,
        token_count=one * 64,
        measured_count=one * 8,
        prompt_tokens=one * 100,
        cached_tokens=one * 16,
        time_unix_nano=np.full(rows, time_unix_nano, np.uint64),
        sampling_probability=np.full(rows, probability, np.float32),
        values=values,
    )


def origin(model: str = "model", replica: str = "replica-0") -> Origin:
    """A worker of a replica."""
    return Origin(
        service="chat",
        model=model,
        replica=replica,
        fingerprint="0123abcd",
        engine="vllm",
        engine_version="0.32.0",
        dtype="bfloat16",
        layer_count=32,
        head_count=32,
        sdk_version="0.1.0",
    )


def batch(
    of: SegmentTable | tuple[SegmentTable, ...],
    *,
    who: Origin | None = None,
    number: int = 0,
    received_unix_nano: int = 0,
    status: ProducerStatus | None = None,
) -> Batch:
    """A batch as read from the log; its offset follows from its number."""
    return Batch(
        offset=number * 1_000,
        next_offset=(number + 1) * 1_000,
        received_unix_nano=received_unix_nano,
        producer=b"\x01" * 16,
        sequence=number + 1,
        origin=who or origin(),
        tables=of if isinstance(of, tuple) else (of,),
        status=status,
    )


def _values(signal: str, rows: int, rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if signal.endswith(("nonfinite", "repetition", "greedy_mismatch")):
        return np.zeros(rows)
    of = CATALOGUE[signal]
    middle = of.buckets[len(of.buckets) // 2]
    return np.clip(rng.normal(middle, 0.25 * (1 + abs(middle)), rows), of.low, of.high)

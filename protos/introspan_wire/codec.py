"""Messages of introspan_wire.v1 in, numpy tables out — and back."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from introspan_wire.signals import Kind, Statistic
from introspan_wire.v1 import observation_pb2 as pb

NO_AXIS = -1
"""Stands for "this column has no such axis" in `Column.layer`, `.head` and `.component`."""

SCHEMAS_KEPT = 64
"""Schemas that are kept decoded, with what is made of them. The widest take 7 MB each, and peers choose them."""

_KIND_TO_PB = {
    Kind.PROMPT: pb.SEGMENT_KIND_PROMPT,
    Kind.DECODED: pb.SEGMENT_KIND_DECODED,
    Kind.CANARY: pb.SEGMENT_KIND_CANARY,
    Kind.REPREFILL: pb.SEGMENT_KIND_REPREFILL,
}
_KIND_FROM_PB = {number: kind for kind, number in _KIND_TO_PB.items()}
_STATISTIC_TO_PB = {
    Statistic.LAST: pb.STATISTIC_LAST,
    Statistic.MEAN: pb.STATISTIC_MEAN,
    Statistic.MAX: pb.STATISTIC_MAX,
    Statistic.SUM: pb.STATISTIC_SUM,
    Statistic.SAMPLE: pb.STATISTIC_SAMPLE,
    Statistic.FIRST: pb.STATISTIC_FIRST,
}
_STATISTIC_FROM_PB = {number: statistic for statistic, number in _STATISTIC_TO_PB.items()}

_FLOAT = np.dtype("<f4")


class FrameError(ValueError):
    """A message that does not decode. `field` is its path in the .proto; the text names value and remedy."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field


class Column(NamedTuple):
    """Meaning of one column of values; axes that the signal lacks are NO_AXIS."""

    signal: str
    statistic: Statistic
    layer: int = NO_AXIS
    head: int = NO_AXIS
    component: int = NO_AXIS


@dataclass(frozen=True, slots=True)
class Schema:
    """Meaning of every column of a table of one kind. Hashable: equal schemas are one key."""

    kind: Kind
    columns: tuple[Column, ...]
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Schemas are keys on hot paths and have hundreds of columns: hashed once.
        object.__setattr__(self, "_hash", hash((self.kind, self.columns)))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True, eq=False)
class SegmentTable:
    """n segments of one kind, by column; every array has n entries, `values` is float32 [n, len(columns)]."""

    schema: Schema
    request_id: Sequence[str]
    trace_id: NDArray[np.uint8]  # [n, 16]
    span_id: NDArray[np.uint8]  # [n, 8]
    cluster_key: NDArray[np.uint64]
    adapter: Sequence[str]
    segment_index: NDArray[np.uint32]
    token_start: NDArray[np.uint32]
    token_count: NDArray[np.uint32]
    measured_count: NDArray[np.uint32]
    prompt_tokens: NDArray[np.uint32]
    cached_tokens: NDArray[np.uint32]
    time_unix_nano: NDArray[np.uint64]
    sampling_probability: NDArray[np.float32]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.request_id)


_COUNTS = ("segment_index", "token_start", "token_count", "measured_count", "prompt_tokens", "cached_tokens")


def encode_table(table: SegmentTable) -> pb.SegmentTable:
    """The message for a table. Raises nothing for a table whose arrays agree in length."""
    adapters = sorted(set(table.adapter))
    index = {name: i for i, name in enumerate(adapters)}
    message = pb.SegmentTable(
        kind=_KIND_TO_PB[table.schema.kind],
        segment_count=len(table),
        request_id=table.request_id,
        trace_id=table.trace_id.tobytes(),
        span_id=table.span_id.tobytes(),
        cluster_key=table.cluster_key.astype("<u8", copy=False).tobytes(),
        adapters=adapters,
        adapter_index=[index[name] for name in table.adapter],
        time_unix_nano=table.time_unix_nano.tolist(),
        sampling_probability=table.sampling_probability.tolist(),
        values=table.values.astype(_FLOAT, copy=False).tobytes(),
        **{name: getattr(table, name).tolist() for name in _COUNTS},
    )
    message.columns.MergeFromString(_encode_columns(table.schema.columns))
    return message


def is_of_unknown_kind(message: pb.SegmentTable) -> bool:
    """Whether only a newer version can know what the table's segments are."""
    return message.kind not in _KIND_FROM_PB and message.kind != pb.SEGMENT_KIND_UNSPECIFIED


def decode_table(message: pb.SegmentTable) -> SegmentTable:
    """The table for a message; `values` is a read-only view of it. Raises FrameError naming the field."""
    kind = _KIND_FROM_PB.get(message.kind)
    if kind is None:
        raise FrameError(
            "tables.kind",
            f"must be one of {', '.join(kind.name for kind in _KIND_TO_PB)}, got {message.kind}",
        )
    schema = _decode_schema(kind, message.columns.SerializeToString(deterministic=True))
    n = message.segment_count
    # Checked before anything is allocated from segment_count, which a hostile peer may set to 2³² − 1.
    for name in ("request_id", "adapter_index", *_COUNTS, "time_unix_nano", "sampling_probability"):
        if len(getattr(message, name)) != n:
            raise FrameError(
                f"tables.{name}",
                f"must have segment_count = {n} entries, got {len(getattr(message, name))}",
            )
    # With the count known, fromiter allocates once: half the time of np.array, which looks at the types first.
    probability = np.fromiter(message.sampling_probability, np.float32, n)
    if n and not (probability.min() > 0 and probability.max() <= 1):
        raise FrameError("tables.sampling_probability", "must be in (0, 1] for every segment")
    return SegmentTable(
        schema=schema,
        request_id=message.request_id[:],
        trace_id=_packed("trace_id", message.trace_id, np.uint8, (n, 16)),
        span_id=_packed("span_id", message.span_id, np.uint8, (n, 8)),
        cluster_key=_packed("cluster_key", message.cluster_key, np.dtype("<u8"), (n,)),
        adapter=_adapters(message),
        time_unix_nano=np.fromiter(message.time_unix_nano, np.uint64, n),
        sampling_probability=probability,
        values=_packed("values", message.values, _FLOAT, (n, len(schema.columns))),
        **{name: np.fromiter(getattr(message, name), np.uint32, n) for name in _COUNTS},
    )


# Any: numpy's own annotation of a dtype argument is a union too wide to name.
def _packed(name: str, data: bytes, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    if len(data) != expected:
        raise FrameError(f"tables.{name}", f"must have {expected} bytes ({shape}), got {len(data)}")
    return np.frombuffer(data, dtype).reshape(shape)


def _adapters(message: pb.SegmentTable) -> list[str]:
    names, index = message.adapters[:], message.adapter_index[:]
    if index and max(index) >= len(names):
        raise FrameError("tables.adapter_index", f"must be below the {len(names)} adapters named")
    return [names[i] for i in index]


@lru_cache(maxsize=SCHEMAS_KEPT)
def _encode_columns(columns: tuple[Column, ...]) -> bytes:
    signals = sorted({column.signal for column in columns})
    index = {name: i for i, name in enumerate(signals)}
    return pb.Columns(
        signals=signals,
        signal_index=[index[column.signal] for column in columns],
        layer=[column.layer for column in columns],
        head=[column.head for column in columns],
        component=[column.component for column in columns],
        statistic=[_STATISTIC_TO_PB[column.statistic] for column in columns],
    ).SerializeToString()


@lru_cache(maxsize=SCHEMAS_KEPT)
def _decode_schema(kind: Kind, data: bytes) -> Schema:
    return Schema(kind, _decode_columns(data))


def _decode_columns(data: bytes) -> tuple[Column, ...]:
    message = pb.Columns.FromString(data)
    n = len(message.signal_index)
    for name in ("layer", "head", "component", "statistic"):
        if len(getattr(message, name)) != n:
            raise FrameError(
                f"tables.columns.{name}",
                f"must have one entry per column ({n}), got {len(getattr(message, name))}",
            )
    if any(i >= len(message.signals) for i in message.signal_index):
        raise FrameError(
            "tables.columns.signal_index", f"must be below the {len(message.signals)} signals named"
        )
    if any(number == pb.STATISTIC_UNSPECIFIED for number in message.statistic):
        raise FrameError("tables.columns.statistic", f"must be one of {sorted(_STATISTIC_FROM_PB)}, got 0")
    if any(axis < NO_AXIS for name in ("layer", "head", "component") for axis in getattr(message, name)):
        raise FrameError("tables.columns", "must have axes of -1 or more")
    return tuple(
        _column(message.signals[signal], statistic, (layer, head, component))
        for signal, statistic, layer, head, component in zip(
            message.signal_index,
            message.statistic,
            message.layer,
            message.head,
            message.component,
            strict=True,
        )
    )


def _column(signal: str, statistic: pb.Statistic, axes: tuple[int, int, int]) -> Column:
    known = _STATISTIC_FROM_PB.get(statistic)
    if known is None:
        # Of a newer version: a column that nothing here can use, like one of a signal that is not in the catalogue.
        return Column(f"{signal} of statistic {statistic}", Statistic.LAST, *axes)
    return Column(signal, known, *axes)

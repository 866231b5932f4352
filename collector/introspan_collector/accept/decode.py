"""A request as it arrived in, its checked tables and their origin out.

What makes a whole request malformed (FrameError, answered INVALID_ARGUMENT): it does not parse, a field is
missing, too long or of the wrong length, or a column contradicts the catalogue or the model's size. Who sends
such a thing is broken, and no part of what it says can be trusted. Texts of the status alone are cut instead:
they come from errors of any length, and repeat with every batch.

What a newer SDK may send is accepted with a remark (partial success): segments of a kind this collector does not
know are rejected, columns of signals and statistics it does not know are left out. And times more than a day off
the collector's clock are replaced by the time of receipt.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from google.protobuf.message import DecodeError

from introspan_collector.accept.origins import Origins
from introspan_collector.accept.status import checked_status
from introspan_collector.model import Origin, ProducerStatus
from introspan_wire.codec import (
    NO_AXIS,
    SCHEMAS_KEPT,
    Column,
    FrameError,
    Schema,
    SegmentTable,
    decode_table,
    is_of_unknown_kind,
)
from introspan_wire.limits import (
    ATTRIBUTES,
    COLUMNS,
    NAME_CHARACTERS,
    TABLES,
)
from introspan_wire.signals import KNOWN, PROJECTION_COMPONENTS, Axis
from introspan_wire.v1 import observation_pb2 as pb
from introspan_wire.v1 import observation_service_pb2 as service_pb

MAX_SKEW_SECONDS = 86_400.0
_PRODUCER_BYTES = 16
_ORIGINS_BYTES = 32 * 2**20
"""Ten thousand producers whose resources are of the usual length."""


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A checked request.

    unknown_signals are names the catalogue lacks; skewed_segments counts the times that were replaced;
    rejected_segments those of unknown_kinds, numbers in the .proto.
    """

    producer: bytes
    sequence: int
    origin: Origin
    tables: tuple[SegmentTable, ...]
    status: ProducerStatus | None
    unknown_signals: tuple[str, ...]
    unknown_columns: int
    skewed_segments: int
    unknown_kinds: tuple[int, ...]
    rejected_segments: int

    @property
    def segments(self) -> int:
        """Number of segments in all tables."""
        return sum(len(table) for table in self.tables)


def decode(raw: bytes, received_unix_nano: int) -> Decoded:
    """The request in raw. Raises FrameError naming field, value and remedy if it is malformed."""
    request = _parse(raw)
    origin = _origins.of(request.resource.SerializeToString(deterministic=True))
    tables: list[SegmentTable] = []
    unknown_names: set[str] = set()
    unknown_columns = skewed_segments = 0
    rejected: Counter[int] = Counter()
    for message in request.tables:
        _check_width(message)
        if is_of_unknown_kind(message):
            rejected[message.kind] += len(message.request_id)
            continue
        table = _checked_texts(decode_table(message))
        known, unknown = _known_columns(table.schema, origin.layer_count, origin.head_count)
        if unknown:
            unknown_names.update(unknown)
            unknown_columns += len(table.schema.columns) - len(known.columns)
            table = _without_unknown(table, known)
        table, skewed = _without_skew(table, received_unix_nano)
        skewed_segments += skewed
        tables.append(table)
    return Decoded(
        producer=request.producer_id,
        sequence=request.sequence,
        origin=origin,
        tables=tuple(tables),
        status=checked_status(request.status) if request.HasField("status") else None,
        unknown_signals=tuple(sorted(unknown_names)),
        unknown_columns=unknown_columns,
        skewed_segments=skewed_segments,
        unknown_kinds=tuple(sorted(rejected)),
        rejected_segments=rejected.total(),
    )


def _parse(raw: bytes) -> service_pb.ExportObservationsRequest:
    try:
        request = service_pb.ExportObservationsRequest.FromString(raw)
    except DecodeError as error:
        raise FrameError(
            "ExportObservationsRequest",
            f"does not parse ({len(raw)} bytes, truncated or not this message): {error}",
        ) from error
    if len(request.producer_id) != _PRODUCER_BYTES:
        raise FrameError("producer_id", f"must have {_PRODUCER_BYTES} bytes, got {len(request.producer_id)}")
    if request.sequence == 0:
        raise FrameError("sequence", "must count from 1, got 0")
    if len(request.tables) > TABLES:
        raise FrameError("tables", f"must be at most {TABLES}, got {len(request.tables)}; split the batch")
    return request


def _origin(data: bytes) -> Origin:
    resource = pb.Resource.FromString(data)
    texts = ("service_name", "replica", "model_name", "model_fingerprint", "engine_name", "engine_version")
    for name in (*texts, "dtype", "sdk_version"):
        _check_text(f"resource.{name}", getattr(resource, name))
    for name in ("model_name", "replica"):
        if not getattr(resource, name):
            raise FrameError(f"resource.{name}", "must not be empty: it identifies the series")
    if len(resource.attributes) > ATTRIBUTES:
        raise FrameError(
            "resource.attributes", f"must be at most {ATTRIBUTES}, got {len(resource.attributes)}"
        )
    for key, value in resource.attributes.items():
        _check_text("resource.attributes", key)
        _check_text(f"resource.attributes[{key}]", value)
    return Origin(
        service=resource.service_name,
        model=resource.model_name,
        replica=resource.replica,
        fingerprint=resource.model_fingerprint,
        engine=resource.engine_name,
        engine_version=resource.engine_version,
        dtype=resource.dtype,
        layer_count=resource.layer_count,
        head_count=resource.head_count,
        sdk_version=resource.sdk_version,
        tensor_parallel_rank=resource.tensor_parallel_rank,
        pipeline_parallel_rank=resource.pipeline_parallel_rank,
        data_parallel_rank=resource.data_parallel_rank,
        attributes=tuple(sorted(resource.attributes.items())),
        tensor_parallel_size=max(resource.tensor_parallel_size, 1),
        pipeline_parallel_size=max(resource.pipeline_parallel_size, 1),
    )


_origins = Origins(_origin, _ORIGINS_BYTES)


def _check_text(field: str, text: str) -> None:
    if len(text) > NAME_CHARACTERS:
        raise FrameError(field, f"must have at most {NAME_CHARACTERS} characters, got {len(text)}")


def _check_width(message: pb.SegmentTable) -> None:
    # Before decoding: a request of 4 MiB has room for a million columns, each of which becomes objects.
    width = len(message.columns.signal_index)
    if width > COLUMNS:
        raise FrameError(
            "tables.columns", f"must be at most {COLUMNS}, got {width}; measure fewer layers or heads"
        )


def _checked_texts(table: SegmentTable) -> SegmentTable:
    if max(map(len, table.request_id), default=0) > NAME_CHARACTERS:
        longest = max(table.request_id, key=len)
        _check_text("tables.request_id", longest)
    for adapter in set(table.adapter):
        _check_text("tables.adapters", adapter)
    return table


@lru_cache(maxsize=SCHEMAS_KEPT)
def _known_columns(schema: Schema, layer_count: int, head_count: int) -> tuple[Schema, tuple[str, ...]]:
    known = []
    unknown = set()
    for column in schema.columns:
        if column.signal in KNOWN:
            _check_axes(column, layer_count, head_count)
            known.append(column)
        else:
            _check_text("tables.columns.signals", column.signal)
            unknown.add(column.signal)
    return (schema if not unknown else Schema(schema.kind, tuple(known))), tuple(sorted(unknown))


def _check_axes(column: Column, layer_count: int, head_count: int) -> None:
    axes = KNOWN[column.signal].axes
    # The residual stream has one more place than there are layers: what enters the final norm.
    limits = {Axis.LAYER: layer_count + 1, Axis.HEAD: head_count, Axis.COMPONENT: PROJECTION_COMPONENTS}
    for axis, limit in limits.items():
        value = getattr(column, axis)
        if (axis in axes) != (value != NO_AXIS):
            expected = "0 or more" if axis in axes else "-1"
            raise FrameError(f"tables.columns.{axis}", f"of {column.signal} must be {expected}, got {value}")
        if axis in axes and value >= limit:
            raise FrameError(
                f"tables.columns.{axis}",
                f"of {column.signal} must be below {limit} for this resource, got {value}",
            )


def _without_unknown(table: SegmentTable, known: Schema) -> SegmentTable:
    kept = [index for index, column in enumerate(table.schema.columns) if column.signal in KNOWN]
    return replace(table, schema=known, values=np.ascontiguousarray(table.values[:, kept]))


def _without_skew(table: SegmentTable, received_unix_nano: int) -> tuple[SegmentTable, int]:
    limit_nano = int(MAX_SKEW_SECONDS * 1e9)
    times = table.time_unix_nano
    off = (times > received_unix_nano + limit_nano) | (times < received_unix_nano - limit_nano)
    skewed = int(np.count_nonzero(off))
    if not skewed:
        return table, 0
    return replace(table, time_unix_nano=np.where(off, np.uint64(received_unix_nano), times)), skewed

"""Observations in, the bytes of requests out, each at most FRAME_BYTES unless one observation is larger."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from introspan.export import texts
from introspan.export.columns import carried
from introspan.export.envelope import encode_resource
from introspan.observation import Observation, Resource
from introspan_wire.codec import Schema, SegmentTable, encode_table
from introspan_wire.limits import COLUMNS
from introspan_wire.signals import Kind
from introspan_wire.v1 import observation_pb2 as pb
from introspan_wire.v1 import observation_service_pb2 as service_pb

FRAME_BYTES = 64 * 1024
"""Size that frames are kept to: encoding shares the interpreter lock with the model's thread."""

_ROW_BYTES = 96
"""Most bytes of a row beside its values, request id and adapter: 44 of fixed width, 35 of varints, tags."""

_TABLE_BYTES = 128
"""Most bytes of a table's tags and lengths."""

_KNOWN_SCHEMAS = 64


@dataclass(frozen=True, slots=True)
class Frame:
    """One serialized request, which is sent unchanged until it is answered or given up."""

    data: bytes
    segments: int
    columns_left_out: int
    """Most columns of a segment that were too many for one request."""


class Framer:
    """Numbers and fills the frames of one producer."""

    def __init__(self, resource: Resource, producer_id: bytes) -> None:
        self._resource = encode_resource(resource)
        self._producer_id = producer_id
        self._sequence = 0
        self._held: Observation | None = None
        self._schemas: dict[int, tuple[Schema, int]] = {}

    def collect(self, take: Callable[[], Observation | None], spare_bytes: int) -> list[Observation]:
        """The next observations that fit one frame beside spare_bytes, in order; one at least if any wait."""
        room = FRAME_BYTES - spare_bytes - self._resource.ByteSize() - len(self._producer_id) - 64
        chosen: list[Observation] = []
        seen: set[int] = set()
        while (observation := self._held or take()) is not None:
            self._held = None
            cost = _row_bytes(observation)
            if id(observation.schema) not in seen:
                cost += self._schema_bytes(observation.schema)
            is_of_others = self._is_of_other_weights(observation.model_fingerprint)
            if chosen and (cost > room or is_of_others):
                self._held = observation
                break
            if is_of_others:
                self.rename(observation.model_fingerprint)
            room -= cost
            seen.add(id(observation.schema))
            chosen.append(observation)
        return chosen

    @property
    def held(self) -> Observation | None:
        """What was taken already and did not fit into the last frame."""
        return self._held

    def rename(self, fingerprint: str) -> None:
        """From the next frame on, the resource is the model of this fingerprint; "" leaves it as it is."""
        if self._is_of_other_weights(fingerprint):
            self._resource.model_fingerprint = texts.name(fingerprint)

    def frame(self, observations: Sequence[Observation], status: pb.ProducerStatus) -> Frame:
        """The next frame, which may hold no observations."""
        self._sequence += 1
        request = service_pb.ExportObservationsRequest(
            resource=self._resource,
            producer_id=self._producer_id,
            sequence=self._sequence,
            tables=[encode_table(table) for table in tables(observations)],
            status=status,
        )
        widest = max((len(one.schema.columns) for one in observations), default=0)
        return Frame(request.SerializeToString(), len(observations), max(0, widest - COLUMNS))

    def _is_of_other_weights(self, fingerprint: str) -> bool:
        return bool(fingerprint) and texts.name(fingerprint) != self._resource.model_fingerprint

    def _schema_bytes(self, schema: Schema) -> int:
        """Size of the columns' meaning. By identity, since hashing a schema visits every column."""
        known = self._schemas.get(id(schema))
        if known is None:
            if len(self._schemas) == _KNOWN_SCHEMAS:
                self._schemas.clear()
            size = encode_table(_table(schema, ())).ByteSize() + _TABLE_BYTES
            known = self._schemas[id(schema)] = (schema, size)
        return known[1]


def _row_bytes(observation: Observation) -> int:
    # A character is at most four bytes of UTF-8.
    return (
        observation.values.nbytes
        + 4 * len(observation.request_id)
        + 4 * len(observation.adapter)
        + _ROW_BYTES
    )


def tables(observations: Sequence[Observation]) -> list[SegmentTable]:
    """One table per schema, prompts first, so that each request's segments stay in order within a frame."""
    by_schema: dict[int, list[Observation]] = {}
    for observation in observations:
        by_schema.setdefault(id(observation.schema), []).append(observation)
    found = [_table(rows[0].schema, rows) for rows in by_schema.values()]
    return sorted(found, key=lambda table: table.schema.kind is not Kind.PROMPT)


def _table(schema: Schema, rows: Sequence[Observation]) -> SegmentTable:
    n = len(rows)
    schema, places = carried(schema)
    values = np.concatenate([row.values[places] for row in rows]) if rows else np.empty(0)
    return SegmentTable(
        schema=schema,
        request_id=[texts.name(row.request_id) for row in rows],
        trace_id=np.frombuffer(b"".join([row.trace_id for row in rows]), np.uint8).reshape(n, 16),
        span_id=np.frombuffer(b"".join([row.span_id for row in rows]), np.uint8).reshape(n, 8),
        cluster_key=np.array([row.cluster_key for row in rows], np.uint64),
        adapter=[texts.name(row.adapter) for row in rows],
        segment_index=np.array([row.segment_index for row in rows], np.uint32),
        token_start=np.array([row.token_start for row in rows], np.uint32),
        token_count=np.array([row.token_count for row in rows], np.uint32),
        measured_count=np.array([row.measured_count for row in rows], np.uint32),
        prompt_tokens=np.array([row.prompt_tokens for row in rows], np.uint32),
        cached_tokens=np.array([row.cached_tokens for row in rows], np.uint32),
        time_unix_nano=np.array([row.time_unix_nano for row in rows], np.uint64),
        sampling_probability=np.array([row.sampling_probability for row in rows], np.float32),
        values=values.astype(np.float32, copy=False).reshape(n, len(schema.columns)),
    )

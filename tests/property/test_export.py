"""Frames of any observations: each once, in order, and small enough."""

from collections import deque

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from introspan.export.backlog import OBJECT_BYTES, Backlog
from introspan.export.envelope import encode_status
from introspan.export.frame import FRAME_BYTES, Framer
from introspan.export.texts import name
from introspan.observation import CaptureStatus, Disabled, Observation, Resource
from introspan_wire.codec import Column, Schema, decode_table
from introspan_wire.signals import Kind, Statistic
from introspan_wire.v1 import observation_service_pb2 as service_pb

RESOURCE = Resource("chat", "r0", "tiny", "f" * 64, "vllm", "0.32.0", "float32", 50, 1, "0.1.0")
WIDTHS = (1, 300, 2_000, 16_000)
SCHEMAS = [
    Schema(kind, tuple(Column("attention.entropy", Statistic.LAST, 2**20, head) for head in range(width)))
    for kind in Kind
    for width in WIDTHS
]
MAX_32 = 2**32 - 1


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    schema = draw(st.sampled_from(SCHEMAS))
    count = st.integers(0, MAX_32)
    return Observation(
        schema=schema,
        request_id=draw(st.text(max_size=80) | st.just("𝄞" * 2_000)),
        trace_id=draw(st.binary(min_size=16, max_size=16)),
        span_id=draw(st.binary(min_size=8, max_size=8)),
        cluster_key=draw(st.integers(0, 2**64 - 1)),
        adapter=draw(st.sampled_from(["", "sql-lora", "é" * 40])),
        segment_index=draw(count),
        token_start=draw(count),
        token_count=draw(count),
        measured_count=draw(count),
        prompt_tokens=draw(count),
        cached_tokens=draw(count),
        time_unix_nano=draw(st.integers(0, 2**64 - 1)),
        sampling_probability=draw(st.floats(0.0009765625, 1.0, width=32)),
        values=np.full(len(schema.columns), draw(st.floats(width=32)), np.float32),
    )


STATUS = st.lists(st.text(max_size=200), max_size=40).map(
    lambda details: CaptureStatus(
        disabled=tuple(Disabled("attention", "reason", detail) for detail in details)
    )
)


@settings(deadline=None)
@given(st.lists(observations(), max_size=60), STATUS)
def test_every_observation_is_framed_once_in_order_and_within_the_limit(rows, status):
    framer = Framer(RESOURCE, bytes(16))
    waiting = deque(rows)
    message = encode_status(status, {"queue_full": 2**60})
    order = []
    while chosen := framer.collect(lambda: waiting.popleft() if waiting else None, message.ByteSize()):
        order += chosen
        data = framer.frame(chosen, message).data
        assert len(data) <= FRAME_BYTES or len(chosen) == 1
        request = service_pb.ExportObservationsRequest.FromString(data)
        decoded = [
            (request_id, int(table.segment_index[i]), int(table.time_unix_nano[i]), table.values[i].tobytes())
            for table in map(decode_table, request.tables)
            for i, request_id in enumerate(table.request_id)
        ]
        given_rows = [
            (name(o.request_id), o.segment_index, o.time_unix_nano, o.values.tobytes()) for o in chosen
        ]
        assert sorted(decoded) == sorted(given_rows)
    assert list(map(id, order)) == list(map(id, rows))


@given(st.lists(st.one_of(st.none(), st.sampled_from(SCHEMAS[:3])), max_size=60), st.integers(0, 40_000))
def test_a_backlog_behaves_like_a_list_that_drops_its_head(steps, max_bytes):
    backlog = Backlog(max_bytes)
    model: list[Observation] = []
    evicted = 0
    for number, schema in enumerate(steps):
        if schema is None:
            assert backlog.take() is (model.pop(0) if model else None)
            continue
        values = np.zeros(len(schema.columns), np.float32)
        one = Observation(schema, str(number), bytes(16), bytes(8), 0, "", 0, 0, 0, 0, 0, 0, 0, 1.0, values)
        model.append(one)
        while sum(o.values.nbytes + OBJECT_BYTES for o in model) > max_bytes:
            model.pop(0)
            evicted += 1
        assert backlog.put(one) == sum(o.values.nbytes + OBJECT_BYTES for o in model)
    assert backlog.evicted == evicted

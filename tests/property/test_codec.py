"""The wire codec: every table comes back as it was, and no bytes whatever do harm."""

import contextlib

import hypothesis.strategies as st
import numpy as np
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays

from introspan_wire.codec import NO_AXIS, Column, FrameError, Schema, SegmentTable, decode_table, encode_table
from introspan_wire.signals import Kind, Statistic
from introspan_wire.v1 import observation_pb2 as pb

COUNTS = ("segment_index", "token_start", "token_count", "measured_count", "prompt_tokens", "cached_tokens")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
AXIS = st.integers(NO_AXIS, 2**31 - 1)
COLUMN = st.builds(Column, TEXT, st.sampled_from(Statistic), AXIS, AXIS, AXIS)


@st.composite
def tables(draw):
    rows = draw(st.integers(0, 6))
    columns = tuple(draw(st.lists(COLUMN, max_size=6)))
    of = lambda dtype, shape=rows, **options: draw(arrays.arrays(dtype, shape, **options))  # noqa: E731 - of this strategy alone
    return SegmentTable(
        schema=Schema(draw(st.sampled_from(Kind)), columns),
        request_id=draw(st.lists(TEXT, min_size=rows, max_size=rows)),
        trace_id=of(np.uint8, (rows, 16)),
        span_id=of(np.uint8, (rows, 8)),
        cluster_key=of(np.uint64),
        adapter=draw(st.lists(st.sampled_from(["", "a", "b"]), min_size=rows, max_size=rows)),
        time_unix_nano=of(np.uint64),
        sampling_probability=of(np.float32, elements=st.floats(2.0**-20, 1, width=32)),
        values=of(np.float32, (rows, len(columns)), elements=st.floats(width=32)),
        **{name: of(np.uint32) for name in COUNTS},
    )


@given(tables())
def test_a_table_survives_the_wire(table):
    message = pb.SegmentTable.FromString(encode_table(table).SerializeToString())
    decoded = decode_table(message)
    assert decoded.schema == table.schema
    assert decoded.request_id == table.request_id
    assert decoded.adapter == table.adapter
    names = (*COUNTS, "trace_id", "span_id", "cluster_key", "time_unix_nano", "sampling_probability")
    for name in names:
        np.testing.assert_array_equal(getattr(decoded, name), getattr(table, name))
    assert decoded.values.tobytes() == table.values.tobytes()


@given(tables(), st.data())
@settings(max_examples=300)
def test_damaged_bytes_decode_or_name_a_field(table, data):
    encoded = bytearray(encode_table(table).SerializeToString())
    if encoded:
        for _ in range(data.draw(st.integers(1, 4))):
            encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(encoded[: data.draw(st.integers(0, len(encoded)))])
    with contextlib.suppress(DecodeError, FrameError):
        decoded = decode_table(pb.SegmentTable.FromString(damaged))
        assert decoded.values.shape == (len(decoded), len(decoded.schema.columns))

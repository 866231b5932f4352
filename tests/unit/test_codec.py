"""The wire codec: what does not decode says which field, which value and what is expected."""

import numpy as np
import pytest

from introspan_wire.codec import Column, FrameError, Schema, SegmentTable, decode_table, encode_table
from introspan_wire.signals import Kind, Statistic
from introspan_wire.v1 import observation_pb2 as pb

COLUMNS = (Column("residual.log_rms", Statistic.MEAN, 3), Column("output.entropy", Statistic.MEAN))


def a_table(rows=3, columns=COLUMNS):
    counts = np.arange(rows, dtype=np.uint32)
    return SegmentTable(
        schema=Schema(Kind.DECODED, columns),
        request_id=[f"request-{row}" for row in range(rows)],
        trace_id=np.arange(rows * 16, dtype=np.uint8).reshape(rows, 16),
        span_id=np.arange(rows * 8, dtype=np.uint8).reshape(rows, 8),
        cluster_key=np.arange(rows, dtype=np.uint64),
        adapter=["", "lora", ""][:rows],
        segment_index=counts,
        token_start=counts,
        token_count=counts,
        measured_count=counts,
        prompt_tokens=counts,
        cached_tokens=counts,
        time_unix_nano=np.full(rows, 1_700_000_000_000_000_000, np.uint64),
        sampling_probability=np.full(rows, 0.5, np.float32),
        values=np.arange(rows * len(columns), dtype=np.float32).reshape(rows, -1),
    )


def test_equal_columns_decode_to_one_schema_with_one_hash():
    first, second = (decode_table(encode_table(a_table(rows))) for rows in (1, 3))
    assert first.schema is second.schema
    assert hash(first.schema) == hash(Schema(Kind.DECODED, COLUMNS))
    assert first.schema == Schema(Kind.DECODED, COLUMNS)
    assert first.schema != Schema(Kind.PROMPT, COLUMNS)


def test_decoding_copies_no_values():
    message = encode_table(a_table())
    assert not decode_table(message).values.flags.owndata


SPOILED = {
    "tables.kind": lambda m: setattr(m, "kind", pb.SEGMENT_KIND_UNSPECIFIED),
    "tables.request_id": lambda m: m.request_id.append("one too many"),
    "tables.trace_id": lambda m: setattr(m, "trace_id", m.trace_id[:-1]),
    "tables.span_id": lambda m: setattr(m, "span_id", m.span_id + b"x"),
    "tables.cluster_key": lambda m: setattr(m, "cluster_key", b""),
    "tables.adapter_index": lambda m: m.adapter_index.__setitem__(0, 9),
    "tables.segment_index": lambda m: m.segment_index.pop(),
    "tables.token_start": lambda m: m.token_start.pop(),
    "tables.token_count": lambda m: m.token_count.pop(),
    "tables.measured_count": lambda m: m.measured_count.pop(),
    "tables.prompt_tokens": lambda m: m.prompt_tokens.pop(),
    "tables.cached_tokens": lambda m: m.cached_tokens.pop(),
    "tables.time_unix_nano": lambda m: m.time_unix_nano.pop(),
    "tables.sampling_probability": lambda m: m.sampling_probability.__setitem__(0, 0.0),
    "tables.values": lambda m: setattr(m, "values", m.values[:-4]),
    "tables.columns.signal_index": lambda m: m.columns.signal_index.__setitem__(0, 2),
    "tables.columns.layer": lambda m: m.columns.layer.pop(),
    "tables.columns.head": lambda m: m.columns.head.pop(),
    "tables.columns.component": lambda m: m.columns.component.pop(),
    "tables.columns.statistic": lambda m: m.columns.statistic.__setitem__(0, pb.STATISTIC_UNSPECIFIED),
    "tables.columns": lambda m: m.columns.layer.__setitem__(0, -2),
}


@pytest.mark.parametrize("field", SPOILED)
def test_a_spoiled_field_is_named(field):
    message = encode_table(a_table())
    SPOILED[field](message)
    with pytest.raises(FrameError) as error:
        decode_table(message)
    assert error.value.field == field
    assert str(error.value).startswith(f"{field} must ")


@pytest.mark.parametrize("probability", [-0.1, 1.5, float("nan")])
def test_a_probability_outside_0_to_1_is_refused(probability):
    message = encode_table(a_table())
    message.sampling_probability[1] = probability
    with pytest.raises(FrameError, match=r"sampling_probability must be in \(0, 1\]"):
        decode_table(message)


def test_a_huge_segment_count_is_refused_before_anything_is_allocated():
    message = encode_table(a_table())
    message.segment_count = 2**32 - 1
    with pytest.raises(FrameError, match=r"segment_count = 4294967295 entries, got 3"):
        decode_table(message)


def test_a_wrong_column_count_says_how_many_bytes_were_expected():
    message = encode_table(a_table())
    message.values = message.values[: 3 * 4]
    with pytest.raises(FrameError, match=r"tables.values must have 24 bytes \(\(3, 2\)\), got 12"):
        decode_table(message)

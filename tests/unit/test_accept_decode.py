"""Checks on requests: what is malformed, left out, cut or replaced."""

import numpy as np
import pytest

from bench import fleet
from introspan_collector.accept.decode import decode
from introspan_collector.model import DisabledSignal
from introspan_wire.codec import Column, FrameError, Schema, encode_table
from introspan_wire.limits import COLUMNS
from introspan_wire.signals import CATALOGUE, Kind, Statistic
from introspan_wire.v1 import observation_pb2 as pb
from tests.requests import NOW, PRODUCER, SHAPE, a_request

DAY_NANO = 86_400 * 10**9


def test_a_request_decodes_to_its_origin_tables_and_status():
    decoded = decode(a_request().SerializeToString(), NOW)
    assert (decoded.producer, decoded.sequence, decoded.segments) == (PRODUCER, 1, 2)
    assert (decoded.origin.model, decoded.origin.replica, decoded.origin.layer_count) == ("model", "r", 32)
    assert decoded.status.drops == (("queue_full", 3),)
    status = decoded.status
    drawn = status.sampler_tokens, status.sampler_low, status.sampler_high, status.sampler_sum
    assert drawn == (5, 2, 1, 2.5)
    assert status.queue_age_seconds == 0.75
    assert decoded.tables[0].schema == fleet.schema(SHAPE)
    assert (decoded.unknown_columns, decoded.skewed_segments) == (0, 0)


def test_a_request_with_status_alone_is_accepted():
    request = a_request()
    del request.tables[:]
    assert decode(request.SerializeToString(), NOW).segments == 0


def with_layer(request, layer):
    request.tables[0].columns.layer[0] = layer


SPOILED = {
    "producer_id": lambda r: setattr(r, "producer_id", b"short"),
    "sequence": lambda r: setattr(r, "sequence", 0),
    "tables": lambda r: r.tables.extend([r.tables[0]] * 64),
    "resource.model_name": lambda r: setattr(r.resource, "model_name", ""),
    "resource.replica": lambda r: setattr(r.resource, "replica", ""),
    "resource.service_name": lambda r: setattr(r.resource, "service_name", "x" * 513),
    "resource.attributes": lambda r: r.resource.attributes.update({str(i): "" for i in range(65)}),
    "resource.attributes[key]": lambda r: r.resource.attributes.update({"key": "x" * 513}),
    "tables.request_id": lambda r: r.tables[0].request_id.__setitem__(0, "x" * 513),
    "tables.adapters": lambda r: r.tables[0].adapters.__setitem__(0, "x" * 513),
    "tables.columns.signals": lambda r: r.tables[0].columns.signals.__setitem__(0, "x" * 513),
    "tables.columns.layer": lambda r: with_layer(r, 33),
    "tables.columns.head": lambda r: r.tables[0].columns.head.__setitem__(0, -1),
    "status.drops": lambda r: r.status.drops.extend([r.status.drops[0]] * 256),
    "status.disabled": lambda r: r.status.disabled.extend([pb.DisabledSignal()] * 257),
    "status.sampler_low": lambda r: r.status.MergeFrom(pb.ProducerStatus(sampler_low=3, sampler_high=3)),
    "status.sampler_sum": lambda r: r.status.MergeFrom(pb.ProducerStatus(sampler_sum=5.5)),
    "status.queue_age_seconds": lambda r: r.status.MergeFrom(pb.ProducerStatus(queue_age_seconds=-1.0)),
    "status.capture_seconds": lambda r: setattr(r.status, "capture_seconds", float("nan")),
    "status.sampling_probability": lambda r: setattr(r.status, "sampling_probability", 1.5),
}


@pytest.mark.parametrize("field", SPOILED)
def test_a_spoiled_request_is_malformed_and_the_field_is_named(field):
    request = a_request()
    SPOILED[field](request)
    with pytest.raises(FrameError) as error:
        decode(request.SerializeToString(), NOW)
    assert error.value.field == field
    assert str(error.value).startswith(f"{field} ")


def test_texts_of_the_status_are_cut_and_the_batch_is_taken():
    request = a_request()
    reasons = ["r" * 600, "r" * 700]
    request.status.ClearField("drops")
    request.status.drops.extend(pb.DropCount(reason=reason, segments=3) for reason in reasons)
    request.status.drops.add(reason="row", rows=2)
    request.status.disabled.add(signal="s" * 2000, reason="r" * 2000, detail="d" * 2000)
    status = decode(request.SerializeToString(), NOW).status
    assert status.drops == (("r" * 64, 6),)
    assert status.dropped_rows == (("row", 2),)
    assert status.disabled == (DisabledSignal("s" * 512, "r" * 64, "d" * 512),)


def test_a_table_with_too_many_columns_is_malformed_and_the_limit_is_named():
    columns = [Column("output.entropy", Statistic.MEAN)] * (COLUMNS + 1)
    with pytest.raises(FrameError, match=rf"tables.columns must be at most {COLUMNS}, got {COLUMNS + 1}"):
        decode_columns(*columns)
    assert decode_columns(*columns[1:]).tables[0].values.shape == (1, COLUMNS)


@pytest.mark.parametrize("signal", CATALOGUE)
def test_a_column_with_an_axis_its_signal_lacks_or_without_one_it_has_is_malformed(signal):
    axes = {axis.value: 0 for axis in CATALOGUE[signal].axes}
    right = Column(signal, Statistic.MEAN, **axes)
    decode_columns(right)
    for axis in ("layer", "head", "component"):
        with pytest.raises(FrameError, match=f"tables.columns.{axis} of {signal} must be"):
            decode_columns(right._replace(**{axis: -1 if axis in axes else 0}))


def decode_columns(*columns):
    request = a_request()
    table = fleet.table(fleet.schema(SHAPE), 1, np.random.default_rng(0), time_unix_nano=NOW)
    values = np.ones((1, len(columns)), np.float32)
    names = {name: getattr(table, name) for name in table.__slots__}
    spoiled = type(table)(**names | {"schema": Schema(Kind.DECODED, columns), "values": values})
    request.tables[0].CopyFrom(encode_table(spoiled))
    return decode(request.SerializeToString(), NOW)


def test_columns_of_unknown_signals_are_left_out_with_their_values():
    known = Column("output.entropy", Statistic.MEAN)
    decoded = decode_columns(Column("a.new.one", Statistic.MEAN, 5), known, Column("another", Statistic.MEAN))
    assert decoded.unknown_signals == ("a.new.one", "another")
    assert decoded.unknown_columns == 2
    assert decoded.tables[0].schema.columns == (known,)
    assert decoded.tables[0].values.shape == (1, 1)


def test_segments_of_a_kind_that_is_not_known_are_rejected_and_the_others_taken():
    request = a_request()
    request.tables.add().CopyFrom(request.tables[0])
    request.tables[0].kind = 77
    decoded = decode(request.SerializeToString(), NOW)
    assert (decoded.unknown_kinds, decoded.rejected_segments, decoded.segments) == ((77,), 2, 2)
    request.tables[1].kind = pb.SEGMENT_KIND_UNSPECIFIED
    with pytest.raises(FrameError, match=r"tables.kind must be one of .*PROMPT.*, got 0"):
        decode(request.SerializeToString(), NOW)


def test_columns_of_statistics_that_are_not_known_are_left_out_like_those_of_unknown_signals():
    request = a_request()
    columns = request.tables[0].columns
    count = len(columns.statistic)
    columns.statistic[0] = 99
    name = columns.signals[columns.signal_index[0]]
    decoded = decode(request.SerializeToString(), NOW)
    assert decoded.unknown_signals == (f"{name} of statistic 99",)
    assert decoded.tables[0].values.shape == (2, count - 1)
    columns.statistic[0] = pb.STATISTIC_UNSPECIFIED
    with pytest.raises(FrameError, match=r"tables\.columns\.statistic must be one of .*, got 0"):
        decode(request.SerializeToString(), NOW)


@pytest.mark.parametrize("offset", [-DAY_NANO - 10**9, DAY_NANO + 10**9, -NOW])
def test_times_more_than_a_day_off_become_the_time_of_receipt(offset):
    request = a_request()
    request.tables[0].time_unix_nano[1] = NOW + offset
    decoded = decode(request.SerializeToString(), NOW + 5)
    assert decoded.skewed_segments == 1
    assert decoded.tables[0].time_unix_nano.tolist() == [NOW, NOW + 5]

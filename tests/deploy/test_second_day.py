"""What operations.md says of copies, of state of another version and of going on is what a collector does."""

import shutil
import time

import grpc
import numpy as np
import pytest

from bench import fleet
from introspan_wire import codec
from introspan_wire.v1 import observation_pb2 as pb
from introspan_wire.v1 import observation_service_pb2 as service_pb
from introspan_wire.v1 import observation_service_pb2_grpc as service_grpc
from tests.collector import Collector
from tests.patience import eventually

_ROWS = 4
_COUNT = "introspan_output_entropy_nats_count"
_SHAPE = fleet.Shape(residual_layers=(0, 2), attention_layers=(0,), projection_layers=(), heads=2)


def send(collector, sequence):
    """One batch of an SDK that numbers what it sends."""
    table = fleet.table(fleet.schema(_SHAPE), _ROWS, np.random.default_rng(sequence))
    message = codec.encode_table(table)
    message.request_id[:] = [f"{sequence}-{row}" for row in range(_ROWS)]
    message.time_unix_nano[:] = [time.time_ns()] * _ROWS
    request = service_pb.ExportObservationsRequest(
        resource=pb.Resource(model_name="model", replica="replica", layer_count=32, head_count=2),
        producer_id=bytes(16),
        sequence=sequence,
        tables=[message],
    )
    with grpc.insecure_channel(collector.grpc) as channel:
        service_grpc.ObservationServiceStub(channel).ExportObservations(request, timeout=10)


@pytest.fixture(scope="module")
def data(tmp_path_factory, free_port):
    """The folder of a collector that took three batches and was stopped."""
    with Collector(tmp_path_factory.mktemp("first"), free_port) as collector:
        for sequence in (1, 2, 3):
            send(collector, sequence)
        collector.wait_processed()
        assert collector.metric(_COUNT) == 3 * _ROWS
    return collector.data


@pytest.fixture
def copy(data, tmp_path, free_port):
    """Another collector, not started yet, with a copy of that folder."""
    shutil.copytree(data, tmp_path / "data")
    collector = Collector(tmp_path, free_port)
    yield collector
    collector.stop()


def test_a_copy_of_the_folder_of_a_stopped_collector_goes_on_where_it_was(copy):
    copy.start()
    assert copy.metric(_COUNT) == 3 * _ROWS
    send(copy, 3)
    send(copy, 4)
    copy.wait_processed()
    assert copy.metric("introspan_collector_duplicate_batches_total") == 1
    assert copy.metric(_COUNT) == 4 * _ROWS
    assert len(copy.observations()) == 4 * _ROWS


def test_state_of_another_version_is_begun_anew_from_the_log_with_one_line_that_says_so(copy):
    (copy.data / "cursors" / "aggregate").write_bytes(b"state of another version")
    copy.start()
    assert copy.get("/readyz").text == "ready\n"
    eventually(lambda: copy.metric(_COUNT) == 3 * _ROWS)
    said = [line for line in copy.output().splitlines() if "aggregate starts over" in line]
    assert len(said) == 1

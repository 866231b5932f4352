"""A request such as an SDK sends, for tests of what takes it in."""

import numpy as np

from bench import fleet
from introspan_wire.codec import encode_table
from introspan_wire.v1 import observation_pb2 as pb
from introspan_wire.v1 import observation_service_pb2 as service_pb

NOW = 1_800_000_000 * 10**9
PRODUCER = b"p" * 16
SHAPE = fleet.Shape(residual_layers=(0, 2), attention_layers=(0,), projection_layers=(0,), heads=2)


def a_request(sequence=1, rows=2):
    table = fleet.table(fleet.schema(SHAPE), rows, np.random.default_rng(0), time_unix_nano=NOW)
    return service_pb.ExportObservationsRequest(
        resource=pb.Resource(model_name="model", replica="r", layer_count=32, head_count=2),
        producer_id=PRODUCER,
        sequence=sequence,
        tables=[encode_table(table)],
        status=pb.ProducerStatus(
            measured_rows=7,
            drops=[pb.DropCount(reason="queue_full", segments=3)],
            sampler_tokens=5,
            sampler_low=2,
            sampler_high=1,
            sampler_sum=2.5,
            queue_age_seconds=0.75,
        ),
    )

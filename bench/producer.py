"""Tables in, acknowledged batches out: the least that speaks to a collector."""

from types import TracebackType
from typing import Self
from uuid import uuid4

import grpc

from introspan_collector.model import Origin, ProducerStatus
from introspan_wire.codec import SegmentTable, encode_table
from introspan_wire.v1 import observation_pb2 as pb
from introspan_wire.v1 import observation_service_pb2 as service_pb
from introspan_wire.v1 import observation_service_pb2_grpc as service_grpc

_DEADLINE_SECONDS = 10.0


class Producer:
    """One worker's connection to a collector; numbers its batches from 1."""

    def __init__(self, address: str, who: Origin) -> None:
        self._channel = grpc.insecure_channel(address)
        self._stub = service_grpc.ObservationServiceStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        self._who = who
        self._id = uuid4().bytes
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def send(
        self, *tables: SegmentTable, status: ProducerStatus | None = None
    ) -> service_pb.ExportObservationsResponse:
        """The answer once the collector has the batch durably. Raises grpc.RpcError."""
        self._sequence += 1
        answer: service_pb.ExportObservationsResponse = self._stub.ExportObservations(
            service_pb.ExportObservationsRequest(
                resource=_resource(self._who),
                producer_id=self._id,
                sequence=self._sequence,
                tables=[encode_table(table) for table in tables],
                status=None if status is None else _status(status),
            ),
            timeout=_DEADLINE_SECONDS,
            wait_for_ready=True,
        )
        return answer


def _resource(who: Origin) -> pb.Resource:
    return pb.Resource(
        service_name=who.service,
        replica=who.replica,
        model_name=who.model,
        model_fingerprint=who.fingerprint,
        engine_name=who.engine,
        engine_version=who.engine_version,
        dtype=who.dtype,
        layer_count=who.layer_count,
        head_count=who.head_count,
        sdk_version=who.sdk_version,
    )


def _status(status: ProducerStatus) -> pb.ProducerStatus:
    return pb.ProducerStatus(
        measured_steps=status.measured_steps,
        measured_rows=status.measured_rows,
        capture_seconds=status.capture_seconds,
        drops=[
            *(pb.DropCount(reason=reason, segments=segments) for reason, segments in status.drops),
            *(pb.DropCount(reason=reason, requests=requests) for reason, requests in status.dropped_requests),
            *(pb.DropCount(reason=reason, rows=rows) for reason, rows in status.dropped_rows),
        ],
        disabled=[
            pb.DisabledSignal(signal=item.signal, reason=item.reason, detail=item.detail)
            for item in status.disabled
        ],
        probe_errors=status.probe_errors,
        sampler_rows_skipped=status.sampler_rows_skipped,
        attention_rows_skipped=status.attention_rows_skipped,
        sampling_probability=status.sampling_probability,
        sampler_tokens=status.sampler_tokens,
        sampler_low=status.sampler_low,
        sampler_high=status.sampler_high,
        sampler_sum=status.sampler_sum,
        queue_age_seconds=status.queue_age_seconds,
    )

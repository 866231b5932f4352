"""Rows of a canary in, an acknowledgement of the collector out: whoever asks is a producer like any other."""

import uuid
from pathlib import Path

import grpc

from introspan_wire.codec import SegmentTable, encode_table
from introspan_wire.v1 import observation_pb2 as pb
from introspan_wire.v1 import observation_service_pb2 as service_pb
from introspan_wire.v1.observation_service_pb2_grpc import ObservationServiceStub

_SECONDS = 10.0


class ReportError(Exception):
    """Rows that the collector did not take; the text says why and what to do."""


class Report:
    """Sends rows to one collector. address is host:port; ca_file switches TLS on."""

    def __init__(self, address: str, bearer_token: str | None = None, ca_file: Path | None = None) -> None:
        self._address = address
        if ca_file is None:
            self._channel = grpc.insecure_channel(address)
        else:
            self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(ca_file.read_bytes()))
        self._stub = ObservationServiceStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        self._metadata = [("authorization", f"Bearer {bearer_token}")] if bearer_token else []
        self._producer = uuid.uuid4().bytes
        self._sequence = 0

    def send(self, model: str, endpoint: str, table: SegmentTable) -> None:
        """Returns once the rows are in the collector's log. Raises ReportError."""
        self._sequence += 1
        request = service_pb.ExportObservationsRequest(
            resource=pb.Resource(service_name="introspan-canary", replica=endpoint, model_name=model),
            producer_id=self._producer,
            sequence=self._sequence,
            tables=[encode_table(table)],
        )
        try:
            reply = self._stub.ExportObservations(
                request, timeout=_SECONDS, metadata=self._metadata, wait_for_ready=True
            )
        except grpc.RpcError as error:
            raise ReportError(
                f"the collector at {self._address} did not take a canary's answer: {_said(error)}"
            ) from error
        if reply.partial_success.rejected_segments:
            raise ReportError(f"the collector refused rows: {reply.partial_success.error_message}")

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()


def _said(error: grpc.RpcError) -> str:
    assert isinstance(error, grpc.Call), "a blocking call raises an error that is the call as well"
    return f"{error.code().name}: {error.details()}"

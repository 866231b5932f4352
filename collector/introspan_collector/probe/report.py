"""Rows of a canary in, an acknowledgement of the collector out: whoever asks is a producer like any other."""

import uuid
from pathlib import Path

import grpc

from introspan_wire import canary
from introspan_wire.codec import SegmentTable, encode_table
from introspan_wire.v1 import observation_pb2 as pb
from introspan_wire.v1 import observation_service_pb2 as service_pb

_METHOD = "/introspan_wire.v1.ObservationService/ExportObservations"
_SECONDS = 10.0
_SERVICE = "introspan-canary"


class ReportError(Exception):
    """Rows that the collector did not take; the text says why and what to do."""


class Frames:
    """Requests of one producer: numbered, each a table of one model that was asked at an endpoint.

    signed: the endpoint's workers are to measure what is asked, so that states are waited for.
    """

    def __init__(self, endpoint: str, *, signed: bool) -> None:
        self._endpoint = endpoint
        self._signed = signed
        self._producer = uuid.uuid4().bytes
        self._sequence = 0

    def frame(self, model: str, rank: int | None, table: SegmentTable) -> bytes:
        """The next request, serialized. rank: the engine that answered, None where there is one."""
        self._sequence += 1
        resource = pb.Resource(
            service_name=_SERVICE,
            # As workers name themselves.
            replica=self._endpoint if rank is None else f"{self._endpoint}-dp{rank}",
            model_name=model,
            data_parallel_rank=rank or 0,
            attributes={canary.SIGNED: "true"} if self._signed else {},
        )
        return service_pb.ExportObservationsRequest(
            resource=resource,
            producer_id=self._producer,
            sequence=self._sequence,
            tables=[encode_table(table)],
        ).SerializeToString()


class Report:
    """Sends requests to one collector. address is host:port; ca_file switches TLS on."""

    def __init__(self, address: str, bearer_token: str | None = None, ca_file: Path | None = None) -> None:
        self._address = address
        if ca_file is None:
            self._channel = grpc.insecure_channel(address)
        else:
            self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(ca_file.read_bytes()))
        self._call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(_METHOD)
        self._metadata = (("authorization", f"Bearer {bearer_token}"),) if bearer_token else ()

    def send(self, frame: bytes) -> None:
        """Returns once the rows are in the collector's log. Raises ReportError."""
        try:
            raw = self._call(frame, timeout=_SECONDS, metadata=self._metadata, wait_for_ready=True)
        except grpc.RpcError as error:
            raise ReportError(
                f"the collector at {self._address} did not take a canary's answer: {_said(error)}"
            ) from error
        check(raw)

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()


def check(raw: bytes) -> None:
    """Raises ReportError for an answer, serialized, that says that rows were refused."""
    refused = service_pb.ExportObservationsResponse.FromString(raw).partial_success
    if refused.rejected_segments:
        raise ReportError(f"the collector refused rows: {refused.error_message}")


def _said(error: grpc.RpcError) -> str:
    assert isinstance(error, grpc.Call), "a blocking call raises an error that is the call as well"
    return f"{error.code().name}: {error.details()}"

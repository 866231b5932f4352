"""The bytes of a response or of status details in, what they ask of the producer out."""

from dataclasses import dataclass

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from introspan_wire.v1 import observation_service_pb2 as service_pb

DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata in which google.rpc.Status travels."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The collector has the batch, but for rejected_segments; max_sampling_probability None is no limit."""

    rejected_segments: int = 0
    message: str = ""
    max_sampling_probability: float | None = None
    capture_off: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """The collector has not taken the batch. reason is snake_case; retry_after_seconds is its own wish."""

    reason: str
    detail: str
    retryable: bool = False
    retry_after_seconds: float | None = None


def parse_reply(data: bytes) -> Reply | Failure:
    """The reply in a response; a Failure where the bytes are no such message: the peer is not a collector."""
    try:
        response = service_pb.ExportObservationsResponse.FromString(data)
    except DecodeError as error:
        return Failure("bad_reply", f"the reply does not decode: {error}")
    directives = response.directives
    ceiling = directives.max_sampling_probability if directives.HasField("max_sampling_probability") else None
    return Reply(
        rejected_segments=max(0, response.partial_success.rejected_segments),
        message=response.partial_success.error_message,
        max_sampling_probability=ceiling,
        capture_off=directives.capture_off,
    )


def parse_retry_seconds(details: bytes) -> float | None:
    """The delay of google.rpc.RetryInfo in a google.rpc.Status, or None where there is none that decodes."""
    try:
        status = status_pb2.Status.FromString(details)
        for detail in status.details:
            info = error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                seconds: float = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
                return max(0.0, seconds)
    except DecodeError:
        return None  # then the client's own back-off applies
    return None

"""Reasons not to accept a batch in, gRPC statuses out."""

import grpc
from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

_DETAILS_KEY = "grpc-status-details-bin"


class RefusalError(Exception):
    """A batch that is answered with an error. reason is the label it is counted under."""

    def __init__(
        self, code: grpc.StatusCode, reason: str, message: str, *, retry_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_seconds = retry_seconds

    def metadata(self) -> tuple[tuple[str, bytes], ...]:
        """Trailing metadata: google.rpc.RetryInfo where the producer should send the batch again."""
        if self.retry_seconds is None:
            return ()
        delay = Duration()
        delay.FromNanoseconds(int(self.retry_seconds * 1e9))
        packed = PackedMessage()
        packed.Pack(RetryInfo(retry_delay=delay))
        number, _ = self.code.value
        status = Status(code=number, message=self.message, details=[packed])
        return ((_DETAILS_KEY, status.SerializeToString()),)


def malformed(message: str) -> RefusalError:
    """The batch can never be accepted."""
    return RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "malformed", message)


def overloaded(reason: str, message: str, retry_seconds: float) -> RefusalError:
    """The batch can be accepted later."""
    return RefusalError(grpc.StatusCode.UNAVAILABLE, reason, message, retry_seconds=retry_seconds)

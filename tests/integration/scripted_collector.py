"""Answers in; a real gRPC server that gives them one after another, and what it received, out."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2

from introspan_wire.v1 import observation_service_pb2 as service_pb

OK = service_pb.ExportObservationsResponse().SerializeToString()
Answer = Callable[[bytes, grpc.ServicerContext], bytes]


class ScriptedCollector:
    """Each call gets the next answer, which is called with (bytes, context) and gives bytes; later ones get OK."""

    def __init__(
        self, *answers: Answer, port: int = 0, credentials: grpc.ServerCredentials | None = None
    ) -> None:
        self.received: list[bytes] = []
        self.metadata: list[dict[str, str]] = []
        self.times: list[float] = []
        self._answers = list(answers)
        self._port = port
        self._credentials = credentials

    def __enter__(self) -> Self:
        self._server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        handler = grpc.unary_unary_rpc_method_handler(self._answer)
        service = "introspan_wire.v1.ObservationService"
        methods = grpc.method_handlers_generic_handler(service, {"ExportObservations": handler})
        self._server.add_generic_rpc_handlers((methods,))
        address = f"127.0.0.1:{self._port}"
        if self._credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, self._credentials)
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()

    def _answer(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        self.times.append(time.monotonic())
        self.metadata.append(dict(context.invocation_metadata()))
        self.received.append(data)
        return self._answers.pop(0)(data, context) if self._answers else OK

    @property
    def requests(self) -> list[service_pb.ExportObservationsRequest]:
        return [service_pb.ExportObservationsRequest.FromString(data) for data in self.received]

    def segments(self) -> list[tuple[str, int]]:
        """(request id, segment index) of every row of distinct batches, in order of arrival."""
        batches = {(request.producer_id, request.sequence): request for request in self.requests}
        return [
            row
            for request in batches.values()
            for table in request.tables
            for row in zip(table.request_id, table.segment_index, strict=True)
        ]


def refuse(code: grpc.StatusCode, retry_seconds: float | None = None) -> Answer:
    """An error; with retry_seconds it says when to come back."""

    def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
        if retry_seconds is not None:
            info = error_details_pb2.RetryInfo()
            info.retry_delay.FromNanoseconds(int(retry_seconds * 1e9))
            status = status_pb2.Status(code=code_pb2.Code.Value(code.name))
            status.details.add().Pack(info)
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(code, "scripted")
        raise AssertionError("abort raises")

    return answer


def reply(**fields: object) -> Answer:
    """A response with these fields."""
    return lambda _data, _context: service_pb.ExportObservationsResponse(**fields).SerializeToString()

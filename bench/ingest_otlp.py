"""OTLP metrics in, sums in a dict out: what a plain Python OTLP server does with the same information."""

import asyncio
import sys

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as service_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb

from introspan_wire.codec import NO_AXIS, Column, SegmentTable

SERVICE = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
_MAX_BYTES = 64 * 2**20
_OF_SEGMENT = frozenset(("request_id", "segment"))

Series = tuple[str, tuple[tuple[str, str | int], ...]]


def metrics_request(table: SegmentTable) -> service_pb.ExportMetricsServiceRequest:
    """Every value of a table as a data point of a gauge named by its signal.

    A data point carries which request and segment it is of, because OTLP identifies a point by its attributes.
    """
    request = service_pb.ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    points = {
        signal: scope.metrics.add(name=signal).gauge.data_points
        for signal in sorted({column.signal for column in table.schema.columns})
    }
    attributes = [_attributes(column) for column in table.schema.columns]
    for row in range(len(table)):
        segment = [
            KeyValue(key="request_id", value=AnyValue(string_value=table.request_id[row])),
            KeyValue(key="segment", value=AnyValue(int_value=int(table.segment_index[row]))),
            KeyValue(key="adapter", value=AnyValue(string_value=table.adapter[row])),
        ]
        for index, column in enumerate(table.schema.columns):
            points[column.signal].add(
                time_unix_nano=int(table.time_unix_nano[row]),
                as_double=float(table.values[row, index]),
                attributes=[*attributes[index], *segment],
                exemplars=[pb.Exemplar(trace_id=table.trace_id[row].tobytes())],
            )
    return request


def _attributes(column: Column) -> list[KeyValue]:
    found = [KeyValue(key="statistic", value=AnyValue(string_value=column.statistic.value))]
    for axis in ("layer", "head", "component"):
        value = getattr(column, axis)
        if value != NO_AXIS:
            found.append(KeyValue(key=axis, value=AnyValue(int_value=value)))
    return found


class Servicer(service_grpc.MetricsServiceServicer):
    """Adds every data point to the sum and count of its series."""

    def __init__(self) -> None:
        self.series: dict[Series, tuple[float, int]] = {}

    async def Export(  # noqa: N802 the name of the RPC
        self,
        request: service_pb.ExportMetricsServiceRequest,
        context: object,  # noqa: ARG002 gRPC passes it
    ) -> service_pb.ExportMetricsServiceResponse:
        """Takes one request."""
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.gauge.data_points:
                        key = (metric.name, tuple(map(_item, filter(_is_of_series, point.attributes))))
                        total, count = self.series.get(key, (0.0, 0))
                        self.series[key] = (total + point.as_double, count + 1)
        return service_pb.ExportMetricsServiceResponse()


def _is_of_series(attribute: KeyValue) -> bool:
    return attribute.key not in _OF_SEGMENT


def _item(attribute: KeyValue) -> tuple[str, str | int]:
    value = attribute.value
    return attribute.key, value.string_value if value.HasField("string_value") else value.int_value


async def _serve(address: str) -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", _MAX_BYTES)])
    service_grpc.add_MetricsServiceServicer_to_server(Servicer(), server)  # type: ignore[no-untyped-call]  # generated code
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))

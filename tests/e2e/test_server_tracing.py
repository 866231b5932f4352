"""A server whose own tracing is on: its spans and our observations are of one trace, that of the caller."""

import pytest
from client import Ask, name, talk, trace
from deployment import CONFIG, serving_soon
from observed import observed, traces_of
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tiny_models import write_talking

from tests.collector import Collector
from tests.patience import eventually
from tests.receiver import receiving


@pytest.fixture(scope="module")
def traced(model_directory, tmp_path_factory, free_port):
    """Address of a server, its collector, and the receiver of its spans, in the encoding of OTLP over HTTP."""
    folder = tmp_path_factory.mktemp("traced")
    model = write_talking(model_directory, folder / "model")
    with Collector(folder, free_port, CONFIG) as collector, receiving() as receiver:
        environment = {
            "INTROSPAN_ENDPOINT": collector.grpc,
            # A server that is forked off another process must have no gRPC in it yet.
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }
        more = ("--otlp-traces-endpoint", f"{receiver.url}/v1/traces")
        with serving_soon(model, folder, free_port(), environment, more=more) as address:
            yield address, collector, receiver


def spans(receiver):
    """What vLLM says of each request: by its id the trace and the span that caused it, in hexadecimal."""
    found = {}
    for call in list(receiver.calls):
        for resource in ExportTraceServiceRequest.FromString(call.body).resource_spans:
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                attributes = {one.key: one.value.string_value for one in span.attributes}
                if span.name == "llm_request":
                    found[attributes["gen_ai.request.id"]] = (span.trace_id.hex(), span.parent_span_id.hex())
    return found


@pytest.mark.parametrize("stream", [True, False])
def test_spans_of_vllm_and_observations_have_the_callers_trace_and_the_callers_span_above_them(
    traced, stream
):
    address, collector, receiver = traced
    one = Ask("Hello.", trace=trace(), id=name(), stream=stream, tokens=30)
    (answer,) = talk(address, one)
    assert answer.status == 200
    found = observed(collector, answer.id)
    assert traces_of(found[answer.id]) == {one.trace}
    assert eventually(lambda: spans(receiver).get(answer.id)) == one.trace


def test_a_request_without_a_trace_is_answered_and_observed_without_one(traced):
    address, collector, receiver = traced
    (answer,) = talk(address, Ask("Hello.", id=name()))
    assert answer.status == 200
    assert traces_of(observed(collector, answer.id)[answer.id]) == {(None, None)}
    # vLLM begins a trace of its own for it, when it has ended: no observation can know of it.
    began, above = eventually(lambda: spans(receiver).get(answer.id))
    assert (len(began), above) == (32, "")

"""Who measures and how capture is doing in, their messages out, within the limits of the protocol."""

from collections.abc import Mapping

from introspan.export import texts
from introspan.observation import CaptureStatus, Resource
from introspan_wire.limits import STATUS_ENTRIES
from introspan_wire.v1 import observation_pb2 as pb


def encode_resource(resource: Resource) -> pb.Resource:
    """The message for a resource, field by field."""
    return pb.Resource(
        service_name=texts.name(resource.service_name),
        replica=texts.name(resource.replica),
        model_name=texts.name(resource.model_name),
        model_fingerprint=texts.name(resource.model_fingerprint),
        engine_name=texts.name(resource.engine_name),
        engine_version=texts.name(resource.engine_version),
        dtype=texts.name(resource.dtype),
        tensor_parallel_rank=resource.tensor_parallel_rank,
        pipeline_parallel_rank=resource.pipeline_parallel_rank,
        data_parallel_rank=resource.data_parallel_rank,
        tensor_parallel_size=resource.tensor_parallel_size,
        pipeline_parallel_size=resource.pipeline_parallel_size,
        layer_count=resource.layer_count,
        head_count=resource.head_count,
        sdk_version=texts.name(resource.sdk_version),
        attributes=texts.attributes(resource.attributes),
    )


def encode_status(
    status: CaptureStatus, export_drops: Mapping[str, int], queue_age_seconds: float = 0.0
) -> pb.ProducerStatus:
    """The message for a status. export_drops: segments that export dropped, by reason; the age is of what waits."""
    return pb.ProducerStatus(
        measured_steps=status.measured_steps,
        measured_rows=status.measured_rows,
        capture_seconds=status.capture_seconds,
        drops=_drops(
            {"segments": export_drops, "requests": status.dropped_requests, "rows": status.dropped_rows}
        ),
        disabled=[
            pb.DisabledSignal(
                signal=texts.name(one.signal),
                reason=texts.reason(one.reason),
                detail=texts.detail(one.detail),
            )
            for one in status.disabled[:STATUS_ENTRIES]
        ],
        probe_errors=status.probe_errors,
        sampler_rows_skipped=status.sampler_rows_skipped,
        attention_rows_skipped=status.attention_rows_skipped,
        sampling_probability=status.sampling_probability,
        sampler_tokens=status.drawn.tokens,
        sampler_low=status.drawn.low,
        sampler_high=status.drawn.high,
        sampler_sum=status.drawn.total,
        queue_age_seconds=queue_age_seconds,
    )


def _drops(by_unit: Mapping[str, Mapping[str, int]]) -> list[pb.DropCount]:
    found: dict[str, pb.DropCount] = {}
    for unit, by_reason in by_unit.items():
        for reason, count in by_reason.items():
            name = texts.reason(reason)
            drop = found.setdefault(name, pb.DropCount(reason=name))
            # Reasons may be the same once cut.
            setattr(drop, unit, getattr(drop, unit) + count)
    return [found[name] for name in sorted(found)[:STATUS_ENTRIES]]

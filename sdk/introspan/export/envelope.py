"""Who measures and how capture is doing in, their messages out."""

from collections.abc import Mapping

from introspan.observation import CaptureStatus, Resource
from introspan_wire.v1 import observation_pb2 as pb


def encode_resource(resource: Resource) -> pb.Resource:
    """The message for a resource, field by field."""
    return pb.Resource(
        service_name=resource.service_name,
        replica=resource.replica,
        model_name=resource.model_name,
        model_fingerprint=resource.model_fingerprint,
        engine_name=resource.engine_name,
        engine_version=resource.engine_version,
        dtype=resource.dtype,
        tensor_parallel_rank=resource.tensor_parallel_rank,
        pipeline_parallel_rank=resource.pipeline_parallel_rank,
        data_parallel_rank=resource.data_parallel_rank,
        layer_count=resource.layer_count,
        head_count=resource.head_count,
        sdk_version=resource.sdk_version,
        attributes=resource.attributes,
    )


def encode_status(status: CaptureStatus, export_drops: Mapping[str, int]) -> pb.ProducerStatus:
    """The message for a status; segments dropped before and during export are counted together by reason."""
    drops = dict(status.drops)
    for reason, segments in export_drops.items():
        drops[reason] = drops.get(reason, 0) + segments
    return pb.ProducerStatus(
        measured_steps=status.measured_steps,
        measured_rows=status.measured_rows,
        capture_seconds=status.capture_seconds,
        drops=[pb.DropCount(reason=reason, segments=n) for reason, n in sorted(drops.items())],
        disabled=[
            pb.DisabledSignal(signal=one.signal, reason=one.reason, detail=one.detail)
            for one in status.disabled
        ],
        probe_errors=status.probe_errors,
        sampler_rows_skipped=status.sampler_rows_skipped,
        attention_rows_skipped=status.attention_rows_skipped,
        sampling_probability=status.sampling_probability,
    )

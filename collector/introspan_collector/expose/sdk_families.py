"""What the SDKs say of themselves in, Prometheus metric families out."""

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from introspan_collector.reasons import by_reason, disabled_by_reason
from introspan_collector.view import View, Worker

_WORKER = ("model", "replica", "worker")
_COUNTERS = {
    "measured_steps": ("introspan_sdk_measured_steps", "Steps measured."),
    "measured_rows": ("introspan_sdk_measured_rows", "Rows (tokens) measured."),
    "capture_seconds": ("introspan_capture_seconds", "Time the model's own thread spent in capture."),
    "probe_errors": ("introspan_sdk_probe_errors", "Errors caught at the edge of a probe."),
    "sampler_rows_skipped": (
        "introspan_sdk_sampler_skipped_rows",
        "Rows whose sampler is not reproduced.",
    ),
    "attention_rows_skipped": (
        "introspan_sdk_attention_skipped_rows",
        "Rows over the attention byte budget.",
    ),
}
_DROPS = {
    "drops": ("introspan_sdk_dropped_segments", "Segments that the SDK did not deliver."),
    "dropped_requests": (
        "introspan_sdk_dropped_requests",
        "Requests that the SDK did not measure, or not compare.",
    ),
    "dropped_rows": (
        "introspan_sdk_dropped_rows",
        "Rows (tokens) that the SDK chose or measured, and that entered no segment.",
    ),
}

_Family = type[CounterMetricFamily] | type[GaugeMetricFamily]
_Sample = tuple[Worker, tuple[str, ...], float]
"""A worker, the values of the labels beside its own, and the number."""


_GAUGES = {
    "sampling_probability": (
        "introspan_sdk_sampling_probability_ratio",
        "Share of requests that is measured.",
    ),
    "queue_age_seconds": (
        "introspan_sdk_queue_age_seconds",
        "Age of the oldest observation that waited in a worker when it last sent something.",
    ),
}


def sdk_families(view: View) -> Iterator[Metric]:
    """Metrics about capture, as each worker last reported it."""
    shown = [worker for worker in view.workers if worker.exposed]
    told = [(worker, worker.status) for worker in shown if worker.status is not None]
    yield _filled(
        CounterMetricFamily,
        ("introspan_segments", "Segments received from a worker."),
        ((worker, (kind,), count) for worker in shown for kind, count in worker.segments),
        ("kind",),
    )
    yield _filled(
        GaugeMetricFamily,
        ("introspan_sdk_last_seen_timestamp_seconds", "When a worker last sent something."),
        ((worker, (), worker.last_seen_unix_nano / 1e9) for worker in shown),
    )
    yield _filled(
        GaugeMetricFamily,
        ("introspan_capture_disabled", "1 for a signal that capture switched off."),
        ((worker, pair, 1) for worker, status in told for pair in disabled_by_reason(status)),
        ("signal", "reason"),
    )
    for field, about in _DROPS.items():
        counts = ((worker, by_reason(getattr(status, field))) for worker, status in told)
        samples = [(worker, (reason,), count) for worker, of in counts for reason, count in of.items()]
        yield _filled(CounterMetricFamily, about, samples, ("reason",))
    for field, about in _COUNTERS.items():
        values = [(worker, (), getattr(status, field)) for worker, status in told]
        yield _filled(CounterMetricFamily, about, values)
    for field, about in _GAUGES.items():
        values = [(worker, (), getattr(status, field)) for worker, status in told]
        yield _filled(GaugeMetricFamily, about, values)


def worker_name(worker: Worker) -> str:
    """Which worker of a replica: its tensor, pipeline and data-parallel ranks."""
    origin = worker.origin
    return f"tp{origin.tensor_parallel_rank}-pp{origin.pipeline_parallel_rank}-dp{origin.data_parallel_rank}"


def _filled(
    family: _Family, about: tuple[str, str], samples: Iterable[_Sample], labels: tuple[str, ...] = ()
) -> Metric:
    """A family of a name and a text; labels: those beside a worker's own."""
    made = family(*about, labels=(*_WORKER, *labels))
    for worker, values, number in samples:
        made.add_metric([worker.origin.model, worker.origin.replica, worker_name(worker), *values], number)
    return made

"""Who serves what, and which deploys are announced, in; Prometheus metric families out."""

from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from introspan_collector.expose.sdk_families import worker_name
from introspan_collector.expose.sources import Detection
from introspan_collector.view import View

_ENGINE = ("fingerprint", "engine", "engine_version", "dtype", "sdk_version")


def deploy_families(view: View, detection: Detection) -> Iterator[Metric]:
    """What each worker serves, and for each watched model whether a deploy is announced now."""
    info = GaugeMetricFamily(
        "introspan_sdk_info",
        "1 for what a worker serves: a change of it is a deploy.",
        labels=("model", "replica", "worker", *_ENGINE),
    )
    for worker in (worker for worker in view.workers if worker.exposed):
        of = worker.origin
        info.add_metric(
            [of.model, of.replica, worker_name(worker), *(getattr(of, name) for name in _ENGINE)], 1
        )
    yield info
    now_unix_seconds = view.time_unix_nano / 1e9
    announced = [
        window["model"]
        for window in detection.windows()
        if window["start"] <= now_unix_seconds < window["end"]
    ]
    yield _maintenance({one["model"] for one in detection.references()}, announced)


def _maintenance(models: Iterable[str], announced: list[str]) -> Metric:
    family = GaugeMetricFamily(
        "introspan_maintenance_active",
        "1 while an announced deploy of the model lasts: of incidents that begin in it nobody is told.",
        labels=("model",),
    )
    for model in sorted(models):
        # A window without a model is of all of them.
        family.add_metric([model], int(model in announced or "" in announced))
    return family

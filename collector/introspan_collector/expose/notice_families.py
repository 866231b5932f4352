"""What became of notices in, Prometheus metric families out."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from introspan_collector.expose.sources import Deliveries


def notice_families(deliveries: Deliveries) -> Iterator[Metric]:
    """Metrics of what each target was told, of calls that failed, and of what was given up."""
    waiting = GaugeMetricFamily(
        "introspan_notify_waiting", "Alerts of which a target does not know the newest.", labels=("target",)
    )
    for (target,), count in _by_host({(url,): n for url, n in deliveries.waiting.items()}).items():
        waiting.add_metric([target], count)
    yield waiting
    informed = GaugeMetricFamily(
        "introspan_notify_alertmanager_informed",
        "1 while at least one Alertmanager knows the newest of every alert; absent where the collector tells none.",
    )
    if deliveries.alertmanagers:
        informed.add_metric([], int(not all(deliveries.waiting.get(url) for url in deliveries.alertmanagers)))
    yield informed
    text = "Notices that a target took."
    delivered = _by_host({(url,): n for url, n in deliveries.delivered.items()})
    yield counted("introspan_notify_delivered", text, ("target",), delivered)
    text = "Calls to a target that failed or were refused."
    yield counted("introspan_notify_failed", text, ("target", "reason"), _by_host(deliveries.failed))
    dropped = {(reason,): count for reason, count in deliveries.dropped.items()}
    yield counted("introspan_notify_dropped", "Notices given up.", ("reason",), dropped)


# Any: as below.
def _by_host(counts: Mapping[Any, int]) -> Counter[tuple[str, ...]]:
    found: Counter[tuple[str, ...]] = Counter()
    for (url, *more), count in counts.items():
        found[host(url), *more] += count
    return found


def host(url: str) -> str:
    """Host and port: user, path and query of an address may be secrets."""
    return urlsplit(url).netloc.rpartition("@")[2]


# Any: tuples of one text or of several, as many as labels.
def counted(name: str, text: str, labels: tuple[str, ...], counts: Mapping[Any, int]) -> Metric:
    """A counter with a value for each of counts' keys."""
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in sorted(counts.items()):
        family.add_metric(values, count)
    return family

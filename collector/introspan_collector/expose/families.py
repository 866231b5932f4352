"""A view of the aggregates in, Prometheus metric families out."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar, Sample

from introspan_collector.expose.names import event_name, gauge_name, histogram_name
from introspan_collector.model import SeriesKey
from introspan_collector.view import NO_LAYER, OVERFLOW, Histogram, View
from introspan_wire.signals import CATALOGUE


def signal_families(view: View) -> Iterator[Metric]:
    """Window means, histograms and event counters of every signal that was measured."""
    yield from _gauges(view)
    yield from _histograms(view)
    yield from _events(view)


def _labels(key: SeriesKey) -> dict[str, str]:
    labels = {"model": key.model, "replica": key.replica, "adapter": key.adapter}
    if key.layer != NO_LAYER:
        labels["layer"] = str(key.layer)
    elif key.model == OVERFLOW:
        labels["layer"] = OVERFLOW
    return labels


def _gauges(view: View) -> Iterator[Metric]:
    families: dict[str, Metric] = {}
    means, counts = view.window.mean.tolist(), view.window.count.tolist()
    for key, mean, count in zip(view.series, means, counts, strict=True):
        if not count:
            continue
        family = families.get(key.signal)
        if family is None:
            over = f"Mean over the last {view.window_seconds:g} s, heads and segments"
            text = f"{over}: {CATALOGUE[key.signal].description}"
            family = families[key.signal] = GaugeMetricFamily(gauge_name(key.signal), text)
        family.samples.append(Sample(family.name, _labels(key), mean))
    yield from families.values()


def _histograms(view: View) -> Iterator[Metric]:
    families: dict[str, Metric] = {}
    for histogram in view.histograms:
        family = families.get(histogram.signal)
        if family is None:
            family = families[histogram.signal] = HistogramMetricFamily(
                histogram_name(histogram.signal), CATALOGUE[histogram.signal].description
            )
        family.samples.extend(_histogram_samples(family.name, histogram))
    yield from families.values()


def _histogram_samples(name: str, histogram: Histogram) -> Iterator[Sample]:
    labels = {"model": histogram.model, "replica": histogram.replica}
    cumulated = histogram.counts.cumsum().tolist()
    bounds = [*(repr(bound) for bound in histogram.bounds), "+Inf"]
    for i, (bound, count) in enumerate(zip(bounds, cumulated, strict=True)):
        found = histogram.exemplars.get(i)
        exemplar = None
        if found is not None:
            ids = {"trace_id": found.trace_id}
            if found.span_id:
                ids["span_id"] = found.span_id
            exemplar = Exemplar(ids, found.value, found.time_unix_seconds)
        yield Sample(f"{name}_bucket", {**labels, "le": bound}, count, None, exemplar)
    # OpenMetrics wants no sum where values may be negative, because it could fall; nor then a count.
    if histogram.bounds[0] >= 0:
        yield Sample(f"{name}_sum", labels, histogram.total)
        yield Sample(f"{name}_count", labels, cumulated[-1])


def _events(view: View) -> Iterator[Metric]:
    families: dict[str, Metric] = {}
    for key, total in view.events:
        family = families.get(key.signal)
        if family is None:
            text = f"Events since the collector's state began: {CATALOGUE[key.signal].description}"
            family = families[key.signal] = CounterMetricFamily(event_name(key.signal), text)
        family.samples.append(Sample(f"{family.name}_total", _labels(key), total))
    yield from families.values()

"""A view of the aggregates in, families of finished sample lines out.

Lines are made here and not from samples, because there may be 50,000: a dictionary of labels for each, sorted and
joined, takes three times as long as the scrape may.
"""

from collections.abc import Iterator
from itertools import accumulate

from introspan_collector.expose.names import event_name, gauge_name, histogram_name
from introspan_collector.expose.text import Family, escaped, exemplar_text, number_text
from introspan_collector.model import SeriesKey
from introspan_collector.view import NO_LAYER, OVERFLOW, Histogram, View
from introspan_wire.signals import CATALOGUE


def signal_families(view: View, *, openmetrics: bool) -> Iterator[Family]:
    """Window means, histograms and event counters of every signal that was measured; exemplars on OpenMetrics."""
    yield from _gauges(view)
    yield from _histograms(view, exemplars=openmetrics)
    yield from _events(view)


def _labels(key: SeriesKey) -> str:
    layer = str(key.layer) if key.layer != NO_LAYER else OVERFLOW if key.model == OVERFLOW else None
    between = "" if layer is None else f'layer="{layer}",'
    who = f'model="{escaped(key.model)}",replica="{escaped(key.replica)}"'
    return f'{{adapter="{escaped(key.adapter)}",{between}{who}}}'


def _gauges(view: View) -> Iterator[Family]:
    families: dict[str, Family] = {}
    means, counts = view.window.mean.tolist(), view.window.count.tolist()
    over = f"Mean over the last {view.window_seconds:g} s, heads and segments"
    for key, mean, count in zip(view.series, means, counts, strict=True):
        if not count:
            continue
        family = families.get(key.signal)
        if family is None:
            text = f"{over}: {CATALOGUE[key.signal].description}"
            family = families[key.signal] = Family(gauge_name(key.signal), "gauge", text, [])
        family.lines.append(f"{family.name}{_labels(key)} {mean!r}\n")
    yield from families.values()


def _histograms(view: View, *, exemplars: bool) -> Iterator[Family]:
    families: dict[str, Family] = {}
    for histogram in view.histograms:
        signal = CATALOGUE[histogram.signal]
        family = families.get(signal.name)
        if family is None:
            family = families[signal.name] = Family(
                histogram_name(signal.name), "histogram", signal.description, []
            )
        family.lines.extend(_histogram_lines(family.name, histogram, exemplars=exemplars))
    yield from families.values()


def _histogram_lines(name: str, histogram: Histogram, *, exemplars: bool) -> Iterator[str]:
    labels = f'model="{escaped(histogram.model)}",replica="{escaped(histogram.replica)}"'
    counts = list(accumulate(histogram.counts.tolist()))
    for i, (bound, count) in enumerate(zip((*histogram.bounds, float("inf")), counts, strict=True)):
        found = histogram.exemplars.get(i) if exemplars else None
        after = ""
        if found is not None:
            ids = {"trace_id": found.trace_id} | ({"span_id": found.span_id} if found.span_id else {})
            after = exemplar_text(ids, found.value, found.time_unix_seconds)
        yield f'{name}_bucket{{le="{number_text(bound)}",{labels}}} {count!r}{after}\n'
    # OpenMetrics wants no sum where values may be negative, because it could fall; nor then a count.
    if histogram.bounds[0] >= 0:
        yield f"{name}_sum{{{labels}}} {histogram.total!r}\n"
        yield f"{name}_count{{{labels}}} {counts[-1]!r}\n"


def _events(view: View) -> Iterator[Family]:
    families: dict[str, Family] = {}
    for key, total in view.events:
        family = families.get(key.signal)
        if family is None:
            text = f"Events since the collector's state began: {CATALOGUE[key.signal].description}"
            family = families[key.signal] = Family(event_name(key.signal), "counter", text, [])
        family.lines.append(f"{family.name}_total{_labels(key)} {total!r}\n")
    yield from families.values()

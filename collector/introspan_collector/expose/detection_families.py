"""What the detector says of itself in, and who is asked and told, Prometheus metric families out."""

import math
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from introspan_collector.expose.canary_families import canary_families
from introspan_collector.expose.notice_families import notice_families
from introspan_collector.expose.sources import Answer, Deliveries, Detection

NO_EVIDENCE = -9.0
"""Stands for less, and for none at all: a gap in a graph would look like a collector that is down."""

_SEVERITIES = ("critical", "warning")
_STATES = ("none", "provisional", "frozen")
_HOUR_SECONDS = 3600.0
_WHO = ("model", "adapter")


def detection_families(
    detection: Detection, endpoints: list[Answer], deliveries: Deliveries
) -> Iterator[Metric]:
    """Metrics of evidence, alarms, references, canaries and notices."""
    references = detection.references()
    yield from _evidence(detection.detection())
    yield from _alarms(detection, references)
    yield from _references(references)
    yield from canary_families(detection.canaries(), endpoints)
    yield from notice_families(deliveries)


def _evidence(detection: Answer) -> Iterator[Metric]:
    levels = GaugeMetricFamily(
        "introspan_evidence_level",
        "Decimal logarithm of evidence over the threshold of an alarm, by detector and together (all): an alarm at 0; "
        f"{NO_EVIDENCE:g} is that or less.",
        labels=(*_WHO, "copy", "detector"),
    )
    for one in detection["levels"]:
        level = NO_EVIDENCE if one["log10"] is None else max(one["log10"], NO_EVIDENCE)
        levels.add_metric([one["model"], one["adapter"], one["copy"], one["detector"]], level)
    yield levels
    yield from _drift(detection["drift"])
    for name, text, key in (
        ("streams", "Streams of evidence that are followed.", "streams"),
        ("watched", "Models and adapters that are watched.", "watched"),
    ):
        yield GaugeMetricFamily(f"introspan_detect_{name}", text, detection[key])
    for name, text, key in (
        ("unwatched_requests", "Requests of models and adapters beyond subject_limit.", "unwatched_requests"),
        ("dropped_values", "Values of evidence left out: too many clusters waited.", "dropped_values"),
        ("refused_findings", "Alarms not recorded: too many incidents were open.", "refused_findings"),
    ):
        yield CounterMetricFamily(f"introspan_detect_{name}", text, detection[key])


def _drift(drift: list[Answer]) -> Iterator[Metric]:
    for key, text in (
        ("distance", "How far projections of the last ticks are from the reference's; shown, not tested."),
        (
            "threshold",
            "What chance alone makes of that distance in all but one of a thousand looks: more where requests are few.",
        ),
    ):
        family = GaugeMetricFamily(f"introspan_latent_drift_{key}", text, labels=(*_WHO, "kind"))
        for one in (one for one in drift if math.isfinite(one[key])):
            family.add_metric([one["model"], one["adapter"], one["kind"]], one[key])
        yield family


def _alarms(detection: Detection, references: list[Answer]) -> Iterator[Metric]:
    active = dict.fromkeys(
        ((one["model"], one["adapter"], severity) for one in references for severity in _SEVERITIES), 0
    )
    told = GaugeMetricFamily(
        "introspan_incident_notified",
        "1 while an incident lasts of which people are told, which they are not in an announced deploy.",
        labels=(*_WHO, "severity", "alarm"),
    )
    for alarm in detection.active():
        active[alarm["model"], alarm["adapter"], alarm["severity"]] = 1
        if alarm["notified"]:
            told.add_metric([alarm[label] for label in (*_WHO, "severity", "alertname")], 1)
    gauge = GaugeMetricFamily(
        "introspan_alarm_active", "1 while an incident is open or acknowledged.", labels=(*_WHO, "severity")
    )
    for key, value in active.items():
        gauge.add_metric(key, value)
    opened = CounterMetricFamily(
        "introspan_incidents", "Incidents that began since the start.", labels=(*_WHO, "alertname")
    )
    for one in detection.opened():
        opened.add_metric([one["model"], one["adapter"], one["alertname"]], one["count"])
    yield from (gauge, told, opened)


def _references(references: list[Answer]) -> Iterator[Metric]:
    texts = {
        "clusters": "Clusters of healthy requests behind the next reference, or the frozen one.",
        "needed_clusters": "Clusters that the next state of the reference takes.",
        "seconds": "Time of healthy requests behind the next reference, or the frozen one.",
        "needed_seconds": "Time that the next state of the reference takes.",
    }
    families = {
        name: GaugeMetricFamily(f"introspan_reference_{name}", text, labels=_WHO)
        for name, text in texts.items()
    }
    state = GaugeMetricFamily(
        "introspan_reference_state", "1 for the state that the reference is in.", labels=(*_WHO, "state")
    )
    for one in references:
        who = [one["model"], one["adapter"]]
        for name in _STATES:
            state.add_metric([*who, name], int(name == one["state"]))
        for name, value in _progress(one).items():
            families[name].add_metric(who, value)
    yield from (*families.values(), state)


def _progress(one: Answer) -> dict[str, float]:
    if not one["building"]:
        has = one["reference"]
        return {} if has is None else {"clusters": has["clusters"], "seconds": has["hours"] * _HOUR_SECONDS}
    newest = one["building"][-1]
    first = newest["reached"] == "none"
    return {
        "clusters": newest["clusters"],
        "needed_clusters": newest["provisional_clusters"] if first else newest["frozen_clusters"],
        "seconds": newest["hours"] * _HOUR_SECONDS,
        "needed_seconds": 0.0 if first else newest["frozen_hours"] * _HOUR_SECONDS,
    }

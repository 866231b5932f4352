"""What the detector, the canary job and the notifier say of themselves in, Prometheus metric families out."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from introspan_collector.expose.sources import Answer, Deliveries, Detection

NO_EVIDENCE = -9.0
"""Stands for less, and for none at all: a gap in a graph would look like a collector that is down."""

_SEVERITIES = ("critical", "warning")
_STATES = ("none", "provisional", "frozen")
_STANDINGS = ("none", "gathering", "still", "deviating", "silent")
_HOUR_SECONDS = 3600.0
_REPLICAS = 1_000
_WHO = ("model", "adapter")


def detection_families(
    detection: Detection, endpoints: list[Answer], deliveries: Deliveries
) -> Iterator[Metric]:
    """Metrics of evidence, alarms, references, canaries and notices."""
    references = detection.references()
    yield from _evidence(detection.detection())
    yield from _alarms(detection, references)
    yield from _references(references)
    yield from _canaries(detection.canaries(), endpoints)
    yield from _deliveries(deliveries)


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


def _canaries(canaries: list[Answer], endpoints: list[Answer]) -> Iterator[Metric]:
    labels = ("model", "replica")
    distance = GaugeMetricFamily(
        "introspan_canary_distance",
        "Distance of the last round, in floors of what chance explains.",
        labels=labels,
    )
    layer = GaugeMetricFamily(
        "introspan_canary_deviating_layer", "Layer in which a deviation begins; -1 for none.", labels=labels
    )
    age = GaugeMetricFamily("introspan_canary_age_seconds", "Time since the last round.", labels=labels)
    rounds = GaugeMetricFamily(
        "introspan_canary_gathered_rounds", "Rounds gathered for the next baseline.", labels=("model",)
    )
    state = GaugeMetricFamily(
        "introspan_canary_state",
        "1 for how the canary stands: none was ever asked, gathering a baseline, still, deviating, or silent for an "
        "hour.",
        labels=("model", "state"),
    )
    for one in canaries:
        rounds.add_metric([one["model"]], one["gathered"])
        for name in _STANDINGS:
            state.add_metric([one["model"], name], int(name == one["state"]))
    every = [(one["model"], replica) for one in canaries for replica in one["replicas"]]
    for model, replica in every[:_REPLICAS]:
        who = [model, replica["replica"]]
        age.add_metric(who, replica["age_seconds"])
        if replica["compared"]:
            distance.add_metric(who, replica["ratio"])
            layer.add_metric(who, -1 if replica["layer"] is None else replica["layer"])
    yield from (distance, layer, age, rounds, state)
    for key, name, text in (
        ("answered", "rounds", "Rounds that an endpoint answered in full."),
        ("failed", "failures", "Rounds that an endpoint did not answer in full."),
    ):
        counts: Counter[tuple[str, ...]] = Counter()
        for endpoint in endpoints:
            counts[_host(endpoint["url"]),] += endpoint[key]
        yield _counted(f"introspan_canary_{name}", text, ("endpoint",), counts)


def _deliveries(deliveries: Deliveries) -> Iterator[Metric]:
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
    yield _counted("introspan_notify_delivered", text, ("target",), delivered)
    text = "Calls to a target that failed or were refused."
    yield _counted("introspan_notify_failed", text, ("target", "reason"), _by_host(deliveries.failed))
    dropped = {(reason,): count for reason, count in deliveries.dropped.items()}
    yield _counted("introspan_notify_dropped", "Notices given up.", ("reason",), dropped)


# Any: as below.
def _by_host(counts: Mapping[Any, int]) -> Counter[tuple[str, ...]]:
    found: Counter[tuple[str, ...]] = Counter()
    for (url, *more), count in counts.items():
        found[_host(url), *more] += count
    return found


def _host(url: str) -> str:
    """Host and port: user, path and query of an address may be secrets."""
    return urlsplit(url).netloc.rpartition("@")[2]


# Any: tuples of one text or of several, as many as labels.
def _counted(name: str, text: str, labels: tuple[str, ...], counts: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in sorted(counts.items()):
        family.add_metric(values, count)
    return family

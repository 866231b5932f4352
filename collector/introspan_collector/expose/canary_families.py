"""How canaries stand in, Prometheus metric families out."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from introspan_collector.expose.notice_families import counted, host
from introspan_collector.expose.sources import Answer

_STANDINGS = ("none", "gathering", "still", "deviating", "silent")
_REPLICAS = 1_000


def canary_families(canaries: list[Answer], endpoints: list[Answer]) -> Iterator[Metric]:
    """Metrics of the last round of each replica, of how each model's canary stands, and of servers that are asked."""
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
    yield from _endpoint_families(endpoints)


def _endpoint_families(endpoints: list[Answer]) -> Iterator[Metric]:
    for key, name, text in (
        ("answered", "rounds", "Rounds that an endpoint answered in full."),
        ("failed", "failures", "Rounds that an endpoint did not answer in full."),
    ):
        counts: Counter[tuple[str, ...]] = Counter()
        for endpoint in endpoints:
            counts[host(endpoint["url"]),] += endpoint[key]
        yield counted(f"introspan_canary_{name}", text, ("endpoint",), counts)

"""What dashboards ask for is what a model served by a real vLLM has: the fleet that they are tried on is like it."""

import re

import promql_parser
import pytest
from client import Ask, talk
from deployment import MODEL

from introspan_collector.expose.names import event_name, gauge_name, histogram_name
from introspan_wire.signals import CATALOGUE, Kind
from tests.deploy.boards import BOARDS, asked, filled, marks
from tests.patience import eventually

pytestmark = pytest.mark.alone

# Of what went wrong, of canaries that somebody asks, of people who are told: a healthy server by itself has none.
ONLY_SOMETIMES = re.compile(
    "introspan_(capture_disabled|sdk_dropped_.*|collector_(refused|dropped)_batches_total|collector_failures_total"
    "|notify_.*|incidents_total|incident_notified|canary_.*|latent_drift_(distance|threshold)|consistency_.*)"
)
ADAPTER = "adapter"
"""A label that is empty is none to Prometheus, and nobody asked for an adapter here."""

EVERYTHING = dict.fromkeys(("model", "replica", "adapter", "instance"), ".*") | dict.fromkeys(
    ("__rate_interval", "__range", "past"), "1m"
)


def selected():
    """Metrics that dashboards ask for, with the labels that they name."""
    found = {}

    def visit(node):
        if isinstance(node, promql_parser.VectorSelector):
            found.setdefault(node.name, set()).update(one.name for one in node.matchers.matchers)

    for board in BOARDS.values():
        for one in (*asked(board), *marks(board)):
            promql_parser.walk(promql_parser.parse(filled(one.expression, EVERYTHING)), pre_visit=visit)
    return {name: labels for name, labels in found.items() if not ONLY_SOMETIMES.fullmatch(name)}


def test_dashboards_ask_for_metrics_and_labels_that_a_served_model_has(deployment):
    talk(deployment.vllm, Ask("Tell me about dashboards.", tokens=60))
    wanted = selected()
    assert len(wanted) > 60
    of_signals = {
        name
        for signal in CATALOGUE.values()
        if Kind.DECODED in signal.kinds
        for name in (
            gauge_name(signal.name),
            f"{histogram_name(signal.name)}_bucket",
            f"{event_name(signal.name)}_total",
        )
    }
    assert len(of_signals & set(wanted)) > 25

    def missing():
        series = deployment.query("series", **{"match[]": '{job="introspan"}'})
        has = {}
        for one in series:
            has.setdefault(one["__name__"], set()).update(one)
        return {
            name: sorted(labels - has.get(name, set()))
            for name, labels in wanted.items()
            if not labels - {ADAPTER} <= has.get(name, set()) or name not in has
        }

    def found():
        assert missing() == {}
        return True

    eventually(found, 90, poll_seconds=2)
    models = deployment.query("label/model/values", **{"match[]": "introspan_segments_total"})
    assert MODEL in models

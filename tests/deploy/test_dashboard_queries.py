"""Every query of every dashboard, executed by a real Prometheus that has scraped a real collector."""

import math
import re

import promql_parser
import pytest

from introspan_collector.expose.names import event_name, gauge_name, histogram_name
from introspan_collector.layout import is_aggregated, is_counted
from introspan_wire.signals import CATALOGUE
from tests.deploy.boards import BOARDS, asked, filled, marks, panels, queried
from tests.deploy.fleet import ADAPTER, CHAT, REPLICAS, SUMMARY
from tests.deploy.worker import FAULTY_LAYER, SHAPE

ASKED = [one for board in BOARDS.values() for one in (*asked(board), *marks(board))]
EVERYTHING = dict.fromkeys(("model", "replica", "adapter", "instance"), ".*") | {
    "__rate_interval": "4s",
    "__range": "60s",
    "past": "30s",
}
ONE_MODEL = EVERYTHING | {"model": CHAT}
"""What a dashboard is asked that shows one model and compares its name as it is."""


def values_of(where):
    return ONE_MODEL if where.startswith("introspan-internals") else EVERYTHING


def selectors(expression):
    """Selectors of an expression, and for each the labels that aggregations above it name."""
    found = []

    def visit(node):
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(expression, pre_visit=visit)
    return found


def grouping(expression):
    """Labels that aggregations name."""
    return {
        label.strip()
        for names in re.findall(r"\b(?:by|on|ignoring|without|group_left) \(([^)]*)\)", expression)
        for label in names.split(",")
        if label.strip()
    }


@pytest.fixture(scope="module")
def labels(fleet):
    """Labels of the series of a metric."""
    known = {}

    def ask(name):
        if name not in known:
            series = fleet.ask("series", **{"match[]": name, "start": fleet.began, "end": fleet.ended + 60})
            known[name] = {label for one in series for label in one}
        return known[name]

    return ask


@pytest.fixture(scope="module")
def results(fleet):
    """Series of a query and their points: over both phases, or at the end of each."""
    known = {}

    def ask(one):
        if one.where not in known:
            known[one.where] = answered(fleet, one)
        return known[one.where]

    return ask


def answered(fleet, one):
    expression = filled(one.expression, values_of(one.where))
    if one.instant:
        found = [
            item
            for at in (fleet.broke, fleet.ended)
            for item in fleet.ask("query", query=expression, time=at)["result"]
        ]
        return [(item["metric"], [item["value"]]) for item in found]
    found = fleet.ask("query_range", query=expression, start=fleet.began - 5, end=fleet.ended, step=1)[
        "result"
    ]
    return [(item["metric"], item["values"]) for item in found]


def test_there_are_four_dashboards():
    assert sorted(BOARDS) == [f"introspan-{name}" for name in ("collector", "fleet", "internals", "requests")]


@pytest.mark.parametrize("one", ASKED, ids=lambda one: one.where)
def test_a_query_names_metrics_and_labels_that_the_collector_has(one, labels):
    expression = promql_parser.parse(filled(one.expression, values_of(one.where)))
    of_all = set()
    for selector in selectors(expression):
        known = labels(selector.name)
        assert known, f"{selector.name} is not exposed"
        named = {matcher.name for matcher in selector.matchers.matchers}
        assert named <= known, f"{selector.name} has no label {sorted(named - known)}, but {sorted(known)}"
        of_all |= known
    assert grouping(one.expression) <= of_all | {"le"}, (
        f"no label {sorted(grouping(one.expression) - of_all)}"
    )


@pytest.mark.parametrize("one", ASKED, ids=lambda one: one.where)
def test_a_query_has_an_answer_with_numbers(one, results):
    found = results(one)
    assert found, "nothing"
    assert any(math.isfinite(float(value)) for _, points in found for _, value in points), found[:3]


@pytest.mark.parametrize("one", [one for one in ASKED if "{{" in one.legend], ids=lambda one: one.where)
def test_a_legend_names_labels_that_the_answer_has(one, results):
    has = {label for metric, _ in results(one) for label in metric}
    assert set(re.findall(r"\{\{(\w+)\}\}", one.legend)) <= has


@pytest.mark.parametrize("one", [one for one in ASKED if one.panel], ids=lambda one: one.where)
def test_a_data_link_takes_labels_that_the_answer_has(one, results):
    ways = one.panel["fieldConfig"]["defaults"].get("links", ())
    wanted = {label for way in ways for label in re.findall(r"\$\{__field\.labels\.(\w+)\}", way["url"])}
    assert wanted <= {label for metric, _ in results(one) for label in metric}


@pytest.mark.parametrize("one", [one for one in ASKED if one.exemplars], ids=lambda one: one.where)
def test_points_on_a_panel_are_requests_with_traces(one, fleet):
    expression = filled(one.expression, values_of(one.where))
    found = fleet.ask("query_exemplars", query=expression, start=fleet.began, end=fleet.ended)
    traces = [point["labels"]["trace_id"] for series in found for point in series["exemplars"]]
    assert traces
    assert all(re.fullmatch("[0-9a-f]{32}", trace) for trace in traces)


@pytest.mark.parametrize("uid", BOARDS)
def test_a_variable_has_values_and_all_of_them(uid, fleet):
    wanted = {
        "model": {CHAT, SUMMARY},
        "replica": set(REPLICAS),
        "adapter": {ADAPTER},
        "instance": {fleet.collector.http},
    }
    for name, series, label in queried(BOARDS[uid]):
        match = filled(series, values_of(uid))
        promql_parser.parse(match)
        found = fleet.ask(
            f"label/{label}/values", **{"match[]": match, "start": fleet.began, "end": fleet.ended + 60}
        )
        assert wanted[name] <= set(found), name


def test_every_signal_that_is_exposed_has_a_panel_inside_the_model_and_one_over_requests():
    def text(uid):
        return "\n".join(one.expression for one in asked(BOARDS[uid]))

    inside, over = text("introspan-internals"), text("introspan-requests")
    for signal in CATALOGUE.values():
        if not is_aggregated(signal.name):
            continue
        if is_counted(signal.name):
            assert f"{event_name(signal.name)}_total{{" in over, signal.name
            assert f"{event_name(signal.name)}_total{{" in inside or f"{gauge_name(signal.name)}{{" in inside
        else:
            assert f"{gauge_name(signal.name)}{{" in inside, signal.name
            once_more = signal.name.startswith("consistency.")
            assert once_more or f"{histogram_name(signal.name)}_bucket{{" in over, signal.name


def test_a_heatmap_of_layers_has_a_row_for_each_layer_that_is_measured(results):
    of_layers = [
        one
        for one in asked(BOARDS["introspan-internals"])
        if one.panel["type"] == "heatmap" and "residual" in one.expression
    ]
    assert of_layers
    for one in of_layers:
        layers = {metric["layer"] for metric, _ in results(one)}
        assert layers == {str(layer) for layer in SHAPE.residual_layers}, one.where


def test_the_heatmap_shows_where_the_fault_begins(fleet, results):
    (one,) = (
        one for one in asked(BOARDS["introspan-internals"]) if one.panel["title"] == "Residual: log rms"
    )
    peaks = {
        int(metric["layer"]): max(float(value) for at, value in points if at > fleet.broke)
        for metric, points in results(one)
    }
    healthy = max(peak for layer, peak in peaks.items() if layer < FAULTY_LAYER)
    assert min(peak for layer, peak in peaks.items() if layer >= FAULTY_LAYER) > healthy


def test_bounds_are_drawn_beside_the_values_they_bind():
    drawn = {
        panel["title"]: [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        for board in BOARDS.values()
        for panel in panels(board)
        if panel["type"] == "timeseries"
        and panel["fieldConfig"]["defaults"].get("custom", {}).get("thresholdsStyle", {}).get("mode")
        == "dashed"
    }
    assert drawn["Canary"] == drawn["Canary by replica"] == [None, 1.0, 8.0]
    for title in ("Evidence for a page, by detector", "Drift of the residual stream: evidence and threshold"):
        assert drawn[title] == [None, -1.0, 0.0]

"""What the rules ask for is there: metrics and labels in a real collector, names and numbers in the code."""

import re
from pathlib import Path

import promql_parser
import pytest

from deploy.grafana.thresholds import QUEUE_SECONDS
from introspan.export.exporter import HEARTBEAT_SECONDS
from introspan_collector.aggregate.settings import AggregateSettings
from introspan_collector.detect.canary.comparison import PAGE_RATIO
from introspan_collector.detect.sequential.evidence import SHARES
from tests.deploy.rules import alerts, rules

ROOT = Path(__file__).parents[2]
RECORDED = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
IN_HEALTH = {
    "IntrospanBatchesLost-warning",  # the fleet's log begins with a record that nobody can read
    "IntrospanCollectorNotifies-info",
    "IntrospanReferenceWarmupLong-warning",  # after three days
    "IntrospanWatchdog-info",
}
FAULTY = {
    "IntrospanCaptureDisabled-warning",
    "IntrospanCollectorFailing-warning",
    "IntrospanIncident-critical",
}
OF_WHAT_IS_NOT_THERE = {"IntrospanCollectorAbsent-critical", "IntrospanNoTelemetry-warning"}
ANY_VALUE = {"severity", "adapter"}
"""Of these it depends on what has happened which values are there."""


def named(rule):
    return rule.get("record") or f"{rule['alert']}-{rule['labels']['severity']}"


def selectors(expression):
    found = []

    def visit(node):
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), pre_visit=visit)
    return found


def grouping(expression):
    """Labels that aggregations and matchings name, "" for none."""
    lists = re.findall(r"\b(?:by|on) \(([^)]*)\)", expression)
    return {label.strip() for names in lists for label in names.split(",")} - {""}


def made(expression):
    """Labels that an expression makes itself."""
    return set(re.findall(r'label_replace\(.*?"(\w+)"', expression, re.DOTALL))


@pytest.fixture(scope="module")
def series(fleet):
    """Label sets of a metric that the fleet's collector has exposed at any time."""
    known = {}

    def ask(name):
        if name not in known:
            known[name] = fleet.ask(
                "series", **{"match[]": name, "start": fleet.began, "end": fleet.ended + 60}
            )
        return known[name]

    return ask


def labels_of(name, series):
    """Labels of a metric or of a recorded one."""
    if name in RECORDED:
        return grouping(RECORDED[name]) or set().union(
            *(labels_of(one.name, series) for one in selectors(RECORDED[name]))
        )
    return {label for one in series(name) for label in one}


@pytest.mark.parametrize("rule", list(rules()), ids=named)
def test_a_rule_names_metrics_labels_and_values_that_a_collector_has(rule, series):
    of_all = made(rule["expr"])
    for one in selectors(rule["expr"]):
        known = labels_of(one.name, series)
        assert known, f"{one.name} is not exposed"
        of_all |= known
        for matcher in one.matchers.matchers:
            assert matcher.name in known, f"{one.name} has no label {matcher.name}, but {sorted(known)}"
            if str(matcher.op) == "MatchOp.Equal" and matcher.name not in ANY_VALUE:
                assert matcher.value in {found.get(matcher.name) for found in series(one.name)}, one.name
    assert grouping(rule["expr"]) <= of_all


def expanded(expression):
    """The same without recorded series, which the fleet's Prometheus does not record."""
    while found := [name for name in RECORDED if name in expression]:
        for name in found:
            recorded = f"({RECORDED[name]})"
            # What was recorded over a time is asked for again every second of it.
            expression = re.sub(rf"{name}\[(\w+)\]", lambda of, at=recorded: f"{at}[{of[1]}:1s]", expression)
            expression = expression.replace(name, recorded)
    return expression


def answers(fleet, expressions, at):
    return {
        name
        for name, expression in expressions.items()
        if fleet.ask("query", query=expression, time=at)["result"]
    }


def test_in_health_conditions_of_alerts_do_not_hold_and_in_faults_they_do(fleet):
    conditions = {named(rule): expanded(rule["expr"]) for rule in alerts()}
    assert answers(fleet, conditions, fleet.broke) == IN_HEALTH
    assert answers(fleet, conditions, fleet.ended) >= IN_HEALTH | FAULTY


@pytest.mark.parametrize(
    "rule", [rule for rule in alerts() if named(rule) not in OF_WHAT_IS_NOT_THERE], ids=named
)
def test_with_thresholds_that_all_pass_every_condition_finds_its_series(rule, fleet):
    """Whatever is joined has the labels that it is joined by."""
    permissive = re.sub(r"\n\s*unless on .*", "", expanded(rule["expr"]), flags=re.DOTALL)
    permissive = re.sub(r"(>=?|==) -?[\d.]+", ">= -1e9", re.sub(r"< [\d.]+", "< 1e9", permissive))
    # The fleet has no ticket, and nothing that is off because its model does not have it.
    permissive = permissive.replace('severity="warning"', 'severity="critical"').replace(
        "reason=~", "reason!~"
    )
    assert fleet.ask("query", query=permissive, time=fleet.ended)["result"], permissive


@pytest.mark.parametrize("rule", alerts(), ids=named)
def test_what_an_alert_says_names_labels_that_it_has(rule):
    said = " ".join(rule["annotations"].values())
    wanted = set(re.findall(r"\$labels\.(\w+)", said))
    has = grouping(rule["expr"]) | made(rule["expr"]) | {"instance", "job"}
    # A selector alone keeps all labels of its metric.
    if not re.search(r"\bby \(", rule["expr"]):
        has |= {"model", "replica", "target"}
    assert wanted <= has


def test_reasons_for_which_nothing_has_failed_are_those_that_the_sdk_gives():
    (shown,) = [rule["expr"] for rule in alerts() if named(rule) == "IntrospanCaptureDisabled-info"]
    reasons = re.search(r'reason=~"([^"]+)"', shown)[1].replace(
        "unsupported_(attention|layer|model)", "unsupported_attention|unsupported_layer|unsupported_model"
    )
    source = "".join(path.read_text() for path in (ROOT / "sdk/introspan/capture").rglob("*.py"))
    assert [reason for reason in reasons.split("|") if f'"{reason}"' not in source] == []


def test_numbers_that_the_code_has_too_are_the_same():
    exprs = {named(rule): rule["expr"] for rule in alerts()}
    assert f"introspan_canary_distance) > {PAGE_RATIO:g}\n" in exprs["IntrospanCanaryFarOff-warning"]
    detectors = re.search(r'detector=~"([^"]+)"', exprs["IntrospanDriftBuilding-info"])[1]
    assert set(detectors.split("|")) <= set(SHARES)
    assert f"introspan_sdk_queue_age_seconds) > {QUEUE_SECONDS:g}\n" in exprs["IntrospanQueueOld-warning"]
    silent_seconds = int(re.search(r"\[1h\]\) > (\d+)", exprs["IntrospanReplicaSilent-warning"])[1])
    assert 10 * HEARTBEAT_SECONDS < silent_seconds < AggregateSettings().idle_seconds

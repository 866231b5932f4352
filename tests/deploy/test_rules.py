"""The rules in a real promtool: they are well formed, and each alert fires when it should, not else, and ends."""

import re
import subprocess
from dataclasses import replace

import pytest

from deploy.grafana.links import COLLECTOR, FLEET, INTERNALS, REQUESTS
from tests.deploy import cases_capture, cases_collector, cases_model
from tests.deploy.rules import DEPLOY, FILES, alerts, promtool_test, rules, seconds, without_annotations

CAPTURE, COLLECTOR_ITSELF, MODEL = FILES
# Those of a model look at whether its replicas are heard.
SUITES = {
    "capture": ((CAPTURE,), cases_capture.CASES),
    "collector": ((COLLECTOR_ITSELF,), cases_collector.CASES),
    "model": ((CAPTURE, MODEL), cases_model.CASES),
}
CASES = tuple(case for _, cases in SUITES.values() for case in cases)
NAMES = sorted({rule["alert"] for rule in alerts()})
ALWAYS = "IntrospanWatchdog"
"""It never ends and has nothing to wait for; of all others more is asked."""
AT_ONCE = {ALWAYS, "IntrospanCollectorNotifies"}


def check(program, *arguments):
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_finds_nothing_wrong_with_configuration_and_rules(promtool_program):
    # Reads the rules and the files of targets that the configuration names as well.
    said = check(promtool_program, "check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    assert said.count("rules found") == len(FILES) == 3
    assert "SUCCESS: 0 rules" not in said
    check(promtool_program, "check", "rules", *FILES)


@pytest.mark.parametrize("suite", SUITES)
def test_every_case_is_as_expected(promtool_program, tmp_path, suite):
    files, cases = SUITES[suite]
    plain = [without_annotations(file, tmp_path) for file in files]
    assert promtool_test(promtool_program, tmp_path, plain, cases) == ""


@pytest.mark.parametrize("name", sorted(set(NAMES) - {ALWAYS}))
def test_every_alert_has_cases_in_which_it_fires_does_not_and_ends(name):
    mine = [case for case in CASES if case.alert == name]
    severities = {rule["labels"]["severity"] for rule in alerts() if rule["alert"] == name}
    assert {one["severity"] for case in mine for fired in case.fires.values() for one in fired} == severities
    assert set().union(*(case.resolves() for case in mine)) == severities
    assert [case for case in mine if case.quiet and not case.fires]


def test_no_case_is_about_an_alert_that_is_gone():
    assert {case.alert for case in CASES} == set(NAMES)


@pytest.mark.parametrize("suite", SUITES)
def test_annotations_of_what_fires_are_sentences_without_gaps(promtool_program, tmp_path, suite):
    files, cases = SUITES[suite]
    firing = shortest(case for case in cases if case.fires)
    # promtool tells what it got where it expected none.
    said = promtool_test(promtool_program, tmp_path, files, firing)
    got = re.findall(r"got:\[(.*?)\n\s*\]", said, re.DOTALL)
    assert len(got) == sum(len(case.fires) for case in firing)
    assert "error expanding template" not in said
    assert "<no value>" not in said
    for one in got:
        for name in ("summary", "description", "runbook_url", "dashboard_url"):
            assert re.search(rf'{name}="[^"]+', one), one


def shortest(cases):
    """Of each alert and severity the case that takes promtool least, for as long as it fires."""
    found = {}
    for case in sorted(cases, key=lambda case: max(map(seconds, case.fires)), reverse=True):
        severities = frozenset(one["severity"] for fired in case.fires.values() for one in fired)
        found[case.alert, severities] = replace(case, quiet=())
    return list(found.values())


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_an_alert_says_how_urgent_it_is_what_is_the_matter_and_where_to_look(rule):
    name = rule["alert"]
    assert re.fullmatch(r"Introspan([A-Z][a-z]+)+", name)
    assert set(rule["labels"]) == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert ("for" in rule) == (name not in AT_ONCE)
    said = rule["annotations"]
    assert set(said) == {"summary", "description", "runbook_url", "dashboard_url"}
    heading = "{{ $labels.alarm | toLower }}" if name == "IntrospanIncident" else name.lower()
    assert said["runbook_url"] == f"docs/runbook.md#{heading}"
    dashboard = re.fullmatch(r"http://localhost:3000/d/([a-z-]+)(\?var-model=.*)?", said["dashboard_url"])
    assert dashboard
    assert dashboard[1] in {FLEET, INTERNALS, REQUESTS, COLLECTOR}


def test_recorded_names_say_level_metric_and_operation():
    recorded = [rule["record"] for rule in rules() if "record" in rule]
    assert len(recorded) == len(set(recorded))
    for name in recorded:
        assert re.fullmatch(r"(instance|model|replica):introspan_[a-z_]+:[a-z0-9_]+", name)
    used = " ".join(rule["expr"] for rule in rules())
    assert [name for name in recorded if name not in used] == []

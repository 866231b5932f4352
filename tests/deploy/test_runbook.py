"""Whoever is called at night finds the page they are sent to, and the page holds what it should."""

import re
from pathlib import Path

import pytest

from deploy.grafana.links import REQUESTS
from introspan_collector.detect.incident.announcement import notice
from introspan_collector.detect.incident.incident import ALERTNAMES
from introspan_collector.detect.incident.incidents import Incidents
from introspan_collector.detect.sequential.evidence import SHARES
from introspan_collector.notify.settings import NotifySettings
from tests.deploy.rules import alerts
from tests.incidents import finding, stream

_RULES = sorted({rule["alert"] for rule in alerts()})
# What is told as IntrospanIncident is looked up under the name of the collector's own alert.
_NAMES = sorted({*ALERTNAMES, *_RULES})
_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs" / "runbook.md").read_text()
_SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", _PAGE, re.MULTILINE | re.DOTALL))


def test_every_alert_has_a_heading_and_every_heading_is_an_alert():
    assert sorted(_SECTIONS) == _NAMES


def test_no_rule_has_the_name_of_an_alert_that_the_collector_posts_itself():
    assert set(_RULES) & set(ALERTNAMES) == set()


@pytest.mark.parametrize("name", _NAMES)
def test_a_section_says_what_it_means_three_things_to_check_and_how_to_close_it(name):
    section = _SECTIONS[name]
    assert re.findall(r"\*\*(.+?)\.?\*\*", section) == [
        "What it means",
        "First three things to check",
        "How to close it",
    ]
    assert re.findall(r"^(\d)\. ", section, re.MULTILINE) == ["1", "2", "3"]


@pytest.mark.parametrize("detector", [*SHARES, "nonfinite", "consistency"])
def test_every_notice_leads_to_its_heading(detector):
    (event,) = Incidents().take(finding(stream(detector)), 0.0)
    one = notice(event.incident, NotifySettings().links)
    address, _, anchor = dict(one.annotations)["runbook_url"].partition("#")
    assert address == "docs/runbook.md"
    # Headings become anchors in lower case, as on every forge.
    assert anchor in {name.lower() for name in _SECTIONS}
    assert dict(one.labels)["alertname"].lower() == anchor
    assert f"/d/{REQUESTS}?var-model=" in dict(one.annotations)["dashboard_url"]


def test_every_metric_that_the_runbook_names_is_exposed():
    exposed = (_ROOT / "tests" / "unit" / "golden" / "metrics.txt").read_text()
    there_are = set(re.findall(r"^# TYPE (\S+)", exposed, re.MULTILINE))
    assert set(re.findall(r"\bintrospan_\w+", _PAGE)) - there_are == set()


def test_every_setting_of_the_collector_that_the_runbook_names_exists():
    settings = (_ROOT / "docs" / "settings.md").read_text()
    named = re.findall(r"`((?:accept|aggregate|canary|detect|log|notify)\.\w+)`", _PAGE)
    assert [name for name in named if f"| `{name}` |" not in settings] == []

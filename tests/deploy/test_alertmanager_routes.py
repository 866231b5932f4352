"""Who is told of which alert, as a real amtool reads the configuration."""

import subprocess

import pytest
import yaml

from tests.deploy.alarmed import routes
from tests.deploy.rules import DEPLOY, alerts, seconds

FILE = DEPLOY / "alertmanager" / "alertmanager.yml"
RECEIVER = {"critical": "page", "warning": "ticket", "info": "nobody"}


def receiver(program, **labels):
    given = [f"{name}={value}" for name, value in labels.items()]
    command = (program, "config", "routes", "test", f"--config.file={FILE}", *given)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_amtool_finds_nothing_wrong(amtool_program):
    done = subprocess.run([amtool_program, "check-config", FILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for found in ("4 inhibit rules", "4 receivers"):
        assert found in done.stdout


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_every_rule_comes_to_who_it_is_for(amtool_program, rule):
    name, severity = rule["alert"], rule["labels"]["severity"]
    expected = "watchdog" if name == "IntrospanWatchdog" else RECEIVER[severity]
    assert receiver(amtool_program, alertname=name, severity=severity, model="m") == expected


@pytest.mark.parametrize("severity", ["critical", "warning"])
def test_what_the_collector_posts_comes_to_the_same_people(amtool_program, severity):
    labels = {"alertname": "IntrospanSamplerDeviates", "model": "m", "adapter": "poet", "severity": severity}
    assert receiver(amtool_program, **labels) == RECEIVER[severity]


def test_an_alert_of_no_severity_is_a_ticket(amtool_program):
    assert receiver(amtool_program, alertname="SomebodyElses") == "ticket"


def test_what_mutes_incidents_is_said_again_before_they_are_told():
    resend_seconds = 60  # Prometheus' default
    evaluation = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["global"]
    waits = [
        seconds(route["group_wait"])
        for route in routes(yaml.safe_load(FILE.read_text())["route"])
        if route.get("matchers") == ['alertname="IntrospanIncident"']
    ]
    assert len(waits) == 2
    assert min(waits) > resend_seconds + seconds(evaluation["evaluation_interval"])

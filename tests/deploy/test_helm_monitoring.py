"""What the chart gives to Prometheus and Grafana is what the repository has for them."""

import json
import re
import subprocess
from itertools import chain

import pytest
import yaml

from tests.deploy.rendered import ROOT, rendered
from tests.deploy.value_sets import VALUE_SETS


@pytest.fixture(scope="module")
def everything():
    """The release with everything on."""
    return rendered(VALUE_SETS["everything on"])


def rules_of(release):
    return {one["metadata"]["name"]: one["spec"] for one in release.of("PrometheusRule")}


def test_rules_are_those_of_the_repository_with_their_braces(everything, promtool_program, tmp_path):
    sources = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"))
    assert sources
    specs = rules_of(everything)
    assert len(specs) == len(sources)
    for source in sources:
        text = source.read_text()
        assert "{{ $labels" in text
        text = text.replace("docs/runbook.md", "https://runbooks.example.com/introspan.md")
        text = text.replace("http://localhost:3000", "https://grafana.example.com")
        assert specs[f"introspan-{source.stem}"] == yaml.safe_load(text)
        (tmp_path / source.name).write_text(yaml.safe_dump(specs[f"introspan-{source.stem}"]))
    done = subprocess.run(
        [promtool_program, "check", "rules", *sorted(tmp_path.glob("*.yml"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_rules_are_objects_that_the_prometheus_operator_takes(everything):
    for spec in rules_of(everything).values():
        assert spec.keys() == {"groups"}
        for group in spec["groups"]:
            assert group.keys() <= {"name", "interval", "rules", "limit", "labels"}
            for rule in group["rules"]:
                assert rule.keys() <= {
                    "alert",
                    "record",
                    "expr",
                    "for",
                    "keep_firing_for",
                    "labels",
                    "annotations",
                }
                assert ("alert" in rule) != ("record" in rule)
                texts = {**rule.get("labels", {}), **rule.get("annotations", {})}
                assert all(isinstance(text, str) for text in texts.values())


def test_the_monitor_scrapes_each_collector_once_as_the_job_that_rules_know(everything):
    monitor = everything.one("ServiceMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"].keys() <= {"selector", "namespaceSelector", "endpoints"}
    wanted = monitor["spec"]["selector"]["matchLabels"]
    (service,) = (one for one in everything.services() if wanted.items() <= one["metadata"]["labels"].items())
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    (relabelling,) = endpoint["relabelings"]
    text = " ".join(path.read_text() for path in (ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"))
    assert set(re.findall(r'job="([^"]+)"', text)) == {relabelling["replacement"]}
    assert relabelling == {"action": "replace", "targetLabel": "job", "replacement": "introspan"}


def test_dashboards_are_those_of_the_repository_byte_for_byte(everything):
    folder = ROOT / "deploy" / "grafana" / "provisioning" / "dashboards" / "json"
    sources = {path.name: path.read_text() for path in folder.glob("*.json")}
    assert len(sources) >= 4
    maps = [
        one for one in everything.of("ConfigMap") if one["metadata"]["labels"].get("grafana_dashboard") == "1"
    ]
    held = dict(chain.from_iterable(one["data"].items() for one in maps))
    assert {name: json.loads(text) for name, text in held.items()} == {
        name: json.loads(text) for name, text in sources.items()
    }
    assert {name: text.strip() for name, text in held.items()} == {
        name: text.strip() for name, text in sources.items()
    }

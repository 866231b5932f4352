"""The chart refuses values that could not be meant, by their name."""

import json

import pytest
import yaml

from docs.collector_settings import MEANINGS
from tests.deploy.rendered import CHART, template

WRONG = {
    "a misspelt value": ({"runbookUrls": "a"}, "runbookUrls"),
    "several collectors behind one Service": ({"replicas": 2}, "replicas"),
    "a misspelt setting": ({"config": {"log": {"max_bytez": 1}}}, "max_bytez"),
    "a section that is none": ({"config": {"logs": {}}}, "logs"),
    "a number as text": ({"config": {"log": {"max_age_seconds": "soon"}}}, "max_age_seconds"),
    "a choice that is none": ({"config": {"log": {"commit": "never"}}}, "commit"),
    "a number beyond its limit": ({"config": {"log": {"max_bytes": 1}}}, "max_bytes"),
    "an address that the chart decides": ({"config": {"grpc": "0.0.0.0:1"}}, "grpc"),
    "a folder that the chart decides": ({"config": {"data": "/tmp"}}, "data"),
    "a file in place of a secret": ({"config": {"canary": {"key_file": "/tmp/key"}}}, "key_file"),
    "a limit that follows from memoryMiB": (
        {"config": {"accept": {"max_resident_bytes": 2**30}}},
        "max_resident_bytes",
    ),
    "no size to hold the volume against": ({"config": {"log": None}}, "log"),
    "half a gibibyte": ({"persistence": {"sizeGiB": 29.5}}, "sizeGiB"),
    "less memory than was measured": ({"memoryMiB": 256}, "memoryMiB"),
    "a size with a unit": ({"persistence": {"sizeGiB": "30Gi"}}, "sizeGiB"),
    "a policy that is none": ({"persistence": {"whenDeleted": "Keep"}}, "whenDeleted"),
    "a digest without its algorithm": ({"image": {"digest": "0" * 64}}, "digest"),
    "a pull policy that is none": ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    "a secret by its text": ({"secrets": {"apiToken": "secret"}}, "apiToken"),
    "a secret that is none": ({"secrets": {"token": {"name": "a", "key": "b"}}}, "token"),
    "a switch as text": ({"networkPolicy": {"enabled": "yes"}}, "enabled"),
    "labels that are no text": ({"podLabels": {"a": 1}}, "podLabels"),
    "a type of Service that is none": ({"service": {"type": "ExternalName"}}, "type"),
    "a processor with a unit that is none": ({"cpuRequest": "1 core"}, "cpuRequest"),
    "a Grafana without scheme": ({"grafanaUrl": "grafana"}, "grafanaUrl"),
    "clients' certificates without TLS": (
        {"tls": {"clientCertificates": True}},
        "tls.clientCertificates needs",
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_value_is_refused_by_its_name(mistake):
    values, named = WRONG[mistake]
    done = template(values)
    assert done.returncode != 0
    assert named in done.stderr, done.stderr


def values_of(schema, path=()):
    for name, part in schema.get("properties", {}).items():
        yield (*path, name)
        yield from values_of(part, (*path, name))


def given(values, path=()):
    for name, value in values.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from given(value, (*path, name))


def test_every_value_of_the_schema_has_a_default_to_be_read():
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    missing = set(values_of(schema)) - set(given(defaults)) - {("global",)}
    assert not {path for path in missing if path[0] != "config"}


def test_config_takes_every_setting_but_those_of_the_chart():
    schema = json.loads((CHART / "values.schema.json").read_text())

    def keys(definition, path=()):
        for name, part in schema["$defs"][definition]["properties"].items():
            reference = part.get("$ref", "")
            if reference:
                yield from keys(reference.rpartition("/")[2], (*path, name))
            else:
                yield ".".join((*path, name))

    left_out = {
        "data",
        "grpc",
        "http",
        "accept.max_resident_bytes",
        "notify.runbook_url",
        "notify.grafana_url",
    }
    files = {key for key in MEANINGS if key.endswith("_file")}
    assert set(keys("Settings")) == set(MEANINGS) - left_out - files

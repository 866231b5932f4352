"""What Helm makes of the chart is what Kubernetes takes, and what the collector understands."""

import gzip
import io
import json
import re
import tarfile
import tomllib
from itertools import chain

import kubernetes_validate
import pytest
import yaml

from deploy.helm.chart import files
from introspan_collector.config import load_settings
from tests.deploy.rendered import CHART, KUBERNETES, ROOT, helm, notes, rendered, template
from tests.deploy.value_sets import VALUE_SETS

_OPERATORS = {"ServiceMonitor", "PrometheusRule"}
_MEBIBYTE = 2**20


@pytest.fixture(scope="module", params=VALUE_SETS)
def release(request):
    """A release with each set of values, made once."""
    return rendered(VALUE_SETS[request.param])


@pytest.fixture(scope="module")
def everything():
    """The release with everything on."""
    return rendered(VALUE_SETS["everything on"])


def test_helm_finds_nothing_to_complain_of():
    done = helm("lint", CHART, "--strict")
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout, done.stdout


@pytest.mark.parametrize("version", ["1.27.0", KUBERNETES])
def test_every_manifest_is_what_kubernetes_takes(release, version):
    checked = set()
    for manifest in release.all:
        if manifest["kind"] not in _OPERATORS:
            used = kubernetes_validate.validate(manifest, version, strict=True)
            assert version.startswith(used)
            checked.add(manifest["kind"])
    assert checked >= {"StatefulSet", "Service", "ConfigMap"}


def test_a_manifest_with_a_misspelt_field_would_be_noticed(everything):
    pod = everything.one("StatefulSet")
    pod["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    try:
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    finally:
        del pod["spec"]["template"]["spec"]["containers"][0]["readynessProbe"]


def test_nothing_of_one_kind_has_a_name_twice(release):
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in release.all]
    assert len(set(names)) == len(names)
    assert {manifest["metadata"]["namespace"] for manifest in release.all} == {"watch"}


def test_the_pod_keeps_to_kubernetes_restricted_standard(release):
    pod, container = release.pod["spec"], release.container
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
    }
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    kinds = set(chain.from_iterable(volume.keys() - {"name"} for volume in pod["volumes"]))
    assert kinds <= {"configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim"}


def test_everything_selects_the_pod_and_names_ports_it_has(release):
    labels = release.pod["metadata"]["labels"]
    ports = {port["name"] for port in release.container["ports"]}
    selectors = [
        release.one("StatefulSet")["spec"]["selector"]["matchLabels"],
        *(service["spec"]["selector"] for service in release.services()),
        *(one["spec"]["selector"]["matchLabels"] for one in release.of("PodDisruptionBudget")),
        *(one["spec"]["podSelector"]["matchLabels"] for one in release.of("NetworkPolicy")),
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
    named = [port["targetPort"] for service in release.services() for port in service["spec"]["ports"]]
    named += [
        port["port"]
        for policy in release.of("NetworkPolicy")
        for rule in policy["spec"]["ingress"]
        for port in rule["ports"]
    ]
    named += [
        release.container[f"{which}Probe"]["httpGet"]["port"]
        for which in ("startup", "readiness", "liveness")
    ]
    assert set(named) == ports == {"grpc", "http"}


def test_a_release_is_one_collector_behind_one_service(release):
    assert release.one("StatefulSet")["spec"]["replicas"] == 1
    service = release.one("Service")["metadata"]["name"]
    assert release.one("StatefulSet")["spec"]["serviceName"] == service


def settings_of(release, folder):
    file = folder / "collector.toml"
    file.write_text(release.one("ConfigMap", "introspan-collector")["data"]["collector.toml"])
    return load_settings(file, {})


def test_the_collector_understands_its_configuration(release, tmp_path):
    settings_of(release, tmp_path)


def test_what_is_set_reaches_the_collector(everything, tmp_path):
    settings = settings_of(everything, tmp_path)
    assert settings.accept.max_pending_bytes == 33554432
    assert settings.log.commit == "interval"
    assert settings.log.max_bytes == 4294967296, "what is not set keeps the chart's default"
    assert settings.detect.page_days == 60
    assert settings.notify.alertmanagers == ("https://alertmanager-0:9093", "https://alertmanager-1:9093")
    assert settings.notify.alertmanager_headers == {"x-scope-orgid": "models"}
    assert settings.notify.runbook_url == "https://runbooks.example.com/introspan.md"
    assert settings.notify.grafana_url == "https://grafana.example.com"
    assert settings.canary.endpoints == ("http://vllm:8000",)


def files_named(configuration):
    """Every key of a configuration that names a file."""
    for key, value in configuration.items():
        if isinstance(value, dict):
            yield from files_named(value)
        elif key.endswith("_file"):
            yield key, value


def mounted_files(release):
    """Every file that the pod's volumes put before the collector."""
    mounts = {mount["name"]: mount["mountPath"] for mount in release.container["volumeMounts"]}
    for volume in release.pod["spec"]["volumes"]:
        folder = mounts[volume["name"]]
        if "configMap" in volume:
            data = release.one("ConfigMap", volume["configMap"]["name"])["data"]
            yield from (f"{folder}/{name}" for name in data)
        elif "secret" in volume:
            yield from (f"{folder}/{name}" for name in ("tls.crt", "tls.key", "ca.crt"))
        elif "projected" in volume:
            for source in volume["projected"]["sources"]:
                yield from (f"{folder}/{item['path']}" for item in source["secret"]["items"])


def test_every_file_that_the_configuration_names_is_mounted(everything):
    configuration = tomllib.loads(
        everything.one("ConfigMap", "introspan-collector")["data"]["collector.toml"]
    )
    named = dict(files_named(configuration))
    assert len(named) == 12
    assert set(named.values()) <= set(mounted_files(everything))
    (config,) = (one.removeprefix("--config=") for one in everything.container["args"] if "--config" in one)
    assert config in set(mounted_files(everything))


def test_every_file_that_the_collector_could_be_given_is_a_secret_of_the_chart(everything):
    configuration = tomllib.loads(
        everything.one("ConfigMap", "introspan-collector")["data"]["collector.toml"]
    )
    text = (ROOT / "docs" / "settings.md").read_text()
    known = re.findall(r"^\| `([a-z_.]+_file)` \|", text, re.MULTILINE)
    given = {key for key, _ in files_named(configuration)}
    assert {key.rpartition(".")[2] for key in known} == given


def test_what_is_written_goes_to_the_volume_and_outlives_the_pod(release):
    args = dict(one.removeprefix("--").split("=") for one in release.container["args"])
    mounts = {mount["name"]: mount for mount in release.container["volumeMounts"]}
    (claim,) = release.one("StatefulSet")["spec"]["volumeClaimTemplates"]
    assert mounts[claim["metadata"]["name"]]["mountPath"] == args["data"]


def test_the_collector_refuses_before_kubernetes_ends_it(release, tmp_path):
    limit = release.container["resources"]["limits"]["memory"]
    assert limit == release.container["resources"]["requests"]["memory"]
    limit_bytes = int(limit.removesuffix("Mi")) * _MEBIBYTE
    resident = settings_of(release, tmp_path).accept.max_resident_bytes
    assert 0.75 * limit_bytes < resident < 0.85 * limit_bytes


def test_the_volume_holds_what_retention_keeps(release, tmp_path):
    (claim,) = release.one("StatefulSet")["spec"]["volumeClaimTemplates"]
    size_bytes = int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi")) * 2**30
    settings = settings_of(release, tmp_path)
    kept = settings.log.max_bytes + settings.archive.max_bytes + settings.archive.rollup_max_bytes
    assert size_bytes >= 1.2 * kept


def test_a_volume_that_is_too_small_is_refused_with_the_size_it_needs():
    done = template({"persistence": {"sizeGiB": 28}})
    assert "persistence.sizeGiB must be >= 29, got 28" in done.stderr
    assert template({"persistence": {"sizeGiB": 29}}).returncode == 0


def test_a_change_of_configuration_restarts_the_collector_and_nothing_else_does():
    first, again, other = (
        rendered({"config": {"log": {"max_age_seconds": age}}}).pod["metadata"]["annotations"]
        for age in (3600, 3600, 7200)
    )
    assert first == again != other


def test_nothing_is_larger_than_kubernetes_takes(everything):
    for one in everything.of("ConfigMap"):
        assert len(json.dumps(one).encode()) < 0.9 * _MEBIBYTE, one["metadata"]["name"]
    # Helm keeps a release, chart and manifests, compressed and in base64 in one Secret.
    chart = "".join(path.read_text() for path in CHART.rglob("*") if path.is_file())
    assert len(gzip.compress((everything.text + chart).encode())) * 4 / 3 < 0.9 * _MEBIBYTE


def test_a_package_of_the_chart_holds_rules_and_dashboards(tmp_path):
    done = helm("package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("*.tgz")
    with tarfile.open(fileobj=io.BytesIO(package.read_bytes())) as archive:
        names = set(archive.getnames())
    held = {f"introspan/{path.relative_to(CHART)}" for path in files()}
    assert len(held) > 5
    assert held <= names


def test_what_the_chart_holds_of_rules_dashboards_and_settings_is_not_stale():
    for path, text in files().items():
        assert path.read_text() == text, f"{path} is stale: run make chart"


def test_an_older_kubernetes_than_was_checked_is_refused():
    done = helm("template", "introspan", CHART, "--kube-version", "1.26.0")
    assert "incompatible with Kubernetes v1.26.0" in done.stderr


def test_the_chart_is_of_the_version_of_the_package():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == version
    assert rendered().container["image"] == f"introspan-collector:{version}"


@pytest.mark.parametrize(
    "name", ["introspan", "prod", "a.release-with-a-name-of-53-characters-as-long-as-be"]
)
def test_names_are_short_enough_and_notes_say_the_right_address(name):
    release = rendered(VALUE_SETS["everything on"], release=name)
    for manifest in release.all:
        assert re.fullmatch(r"[a-z][a-z0-9-]{,60}[a-z0-9]", manifest["metadata"]["name"])
    address = f"{release.one('StatefulSet')['metadata']['name']}.watch:4317"
    assert f"    {address}\n" in notes(release=name)
    assert f'value: "https://{address}"' in notes({"tls": {"secretName": "a"}}, name)


def test_notes_say_what_is_missing_and_no_more():
    wanted = ("set secrets.apiToken", "Nobody is told of alarms", "No canary is asked")
    said, told = notes(), notes(VALUE_SETS["everything on"])
    assert all(text in said for text in wanted)
    assert not any(text in told for text in wanted)


def test_the_examples_send_to_where_the_chart_is():
    release = rendered()
    service = release.one("Service", "introspan-collector")
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    for path in sorted((ROOT / "deploy" / "examples").glob("*.yaml")):
        (address,) = re.findall(r'INTROSPAN_ENDPOINT, value: "([^"]+)"', path.read_text())
        assert address == f"{service['metadata']['name']}.introspan:{ports['grpc']}"

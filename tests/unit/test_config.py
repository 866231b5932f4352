"""Claims on settings: where they come from, what they refuse, and what they say when they do."""

import dataclasses
import itertools
import traceback

import pytest

from introspan.config import KEYS, Settings, SettingsError, load
from introspan.layers import LayerSpec


def test_nothing_set_gives_the_defaults_and_says_why_nothing_is_captured():
    settings = load({})
    assert settings == Settings()
    assert settings.off_because == "capture is off: set INTROSPAN_ENDPOINT=host:4317 to switch it on"


def test_an_endpoint_alone_switches_capture_on_in_the_clear():
    settings = load({"INTROSPAN_ENDPOINT": "collector:4317"})
    assert (settings.endpoint, settings.tls, settings.off_because) == ("collector:4317", False, None)


def test_documented_defaults_are_the_defaults():
    explicit = {key.name: key.default for key in KEYS if key.default}
    assert load(explicit) == load({})


def test_every_key_has_a_name_with_the_prefix_and_a_meaning():
    assert all(key.name.startswith("INTROSPAN_") and key.meaning.endswith(".") for key in KEYS)
    assert len({key.name for key in KEYS}) == len(KEYS)


def test_additional_config_wins_over_introspan_and_introspan_over_otel():
    environ = {"OTEL_SERVICE_NAME": "otel", "INTROSPAN_SERVICE_NAME": "ours"}
    assert load({"OTEL_SERVICE_NAME": "otel"}).service_name == "otel"
    assert load(environ).service_name == "ours"
    assert load(environ, {"service_name": "explicit"}).service_name == "explicit"


def test_an_empty_variable_counts_as_unset():
    assert load({"INTROSPAN_TOKEN_STRIDE": "", "INTROSPAN_ENDPOINT": " "}) == Settings()


@pytest.mark.parametrize(
    ("text", "target", "tls"),
    [
        ("host:4317", "host:4317", False),
        ("host", "host:4317", False),
        ("http://host:5000", "host:5000", False),
        ("https://host:5000/", "host:5000", True),
        ("[::1]:4317", "[::1]:4317", False),
        ("https://[::1]", "[::1]:4317", True),
    ],
)
def test_endpoint_forms(text, target, tls):
    settings = load({"OTEL_EXPORTER_OTLP_ENDPOINT": text})
    assert (settings.endpoint, settings.tls) == (target, tls)


def test_an_otlp_endpoint_that_speaks_http_is_not_ours():
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    assert load(environ).endpoint is None


def test_a_certificate_means_tls_unless_the_operator_says_insecure(tmp_path):
    certificate = tmp_path / "ca.pem"
    certificate.write_text("pem")
    environ = {"INTROSPAN_ENDPOINT": "host:1", "INTROSPAN_CERTIFICATE": str(certificate)}
    assert load(environ).tls
    assert not load({**environ, "INTROSPAN_INSECURE": "on"}).tls
    assert load({"INTROSPAN_ENDPOINT": "host:1", "OTEL_EXPORTER_OTLP_INSECURE": "false"}).tls


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"INTROSPAN_TOKEN_STRIDE": "0"}, "INTROSPAN_TOKEN_STRIDE must be an integer ≥ 1, got '0'"),
        ({"INTROSPAN_TOKEN_STRIDE": "2.5"}, "INTROSPAN_TOKEN_STRIDE must be an integer ≥ 1, got '2.5'"),
        ({"INTROSPAN_REQUEST_RATE": "1.5"}, "INTROSPAN_REQUEST_RATE must be a number from 0 to 1, got '1.5'"),
        (
            {"INTROSPAN_REPREFILL_RATE": "0.1", "INTROSPAN_PROJECTIONS": "off"},
            "INTROSPAN_REPREFILL_RATE must be 0 where INTROSPAN_PROJECTIONS is off, since projections are what is",
        ),
        ({"INTROSPAN_REPREFILL_RATE": "2"}, "INTROSPAN_REPREFILL_RATE must be a number from 0 to 1, got '2'"),
        ({"INTROSPAN_REQUEST_RATE": "nan"}, "INTROSPAN_REQUEST_RATE must be a number from 0 to 1, got 'nan'"),
        (
            {"INTROSPAN_LAYERS": "some"},
            "INTROSPAN_LAYERS must be a number of layers, 'all', or layers as in 0,5,10",
        ),
        ({"INTROSPAN_LAYERS": "-1,2"}, "INTROSPAN_LAYERS must be a number of layers"),
        (
            {"INTROSPAN_LAYERS": "0"},
            "INTROSPAN_LAYERS must be a number of layers ≥ 1 (layer 0 alone is '0,')",
        ),
        ({"INTROSPAN_LAYERS": ","}, "INTROSPAN_LAYERS must be a number of layers"),
        (
            {"INTROSPAN_ATTENTION_BYTES": "64MX"},
            "must be a number of bytes such as 67108864 or 64MiB, got '64MX'",
        ),
        ({"INTROSPAN_PROJECTIONS": "perhaps"}, "INTROSPAN_PROJECTIONS must be on or off, got 'perhaps'"),
        ({"INTROSPAN_ENDPOINT": "ftp://h:1"}, "must be host:port, http://host:port or https://host:port"),
        ({"INTROSPAN_ENDPOINT": "h:99999"}, "must be host:port"),
        ({"INTROSPAN_ENDPOINT": "http://h:1/v1/traces"}, "must be host:port"),
        ({"INTROSPAN_COMPRESSION": "zstd"}, "INTROSPAN_COMPRESSION must be none or gzip, got 'zstd'"),
        (
            {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"},
            "OTEL_EXPORTER_OTLP_TIMEOUT must be a number from 0.1 to 3600",
        ),
        (
            {"INTROSPAN_CERTIFICATE": "/no/such"},
            "INTROSPAN_CERTIFICATE must name a file that exists, got '/no/such'",
        ),
        (
            {"INTROSPAN_TOKEN_STRIPE": "1"},
            "INTROSPAN_TOKEN_STRIPE is not a setting; did you mean INTROSPAN_TOKEN_STRIDE",
        ),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a,b=c"}, "OTEL_RESOURCE_ATTRIBUTES must be key=value"),
        ({"INTROSPAN_HEADERS": "grpc-x=1"}, "INTROSPAN_HEADERS must have names of letters"),
    ],
)
def test_a_wrong_value_names_key_value_and_remedy(environ, message):
    with pytest.raises(SettingsError) as caught:
        load(environ)
    assert message in str(caught.value)


def test_a_wrong_override_is_named_as_the_operator_wrote_it():
    with pytest.raises(SettingsError) as caught:
        load({"INTROSPAN_TOKEN_STRIDE": "24"}, {"token_stride": 0})
    assert (
        str(caught.value)
        == 'additional_config["introspan"]["token_stride"] must be an integer ≥ 1, got \'0\''
    )
    with pytest.raises(SettingsError, match=r'"layer"\] is not a setting; did you mean .*"layers"\]'):
        load({}, {"layer": 8})


@pytest.mark.parametrize(
    "environ", [{"INTROSPAN_SALT": "tooshort"}, {"INTROSPAN_HEADERS": "-bin secretvalue"}]
)
def test_a_wrong_secret_is_not_repeated(environ):
    with pytest.raises(SettingsError) as caught:
        load(environ)
    assert next(iter(environ.values())) not in str(caught.value)


@pytest.mark.parametrize("variable", ["INTROSPAN_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"])
@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://bob:hunter2@host", "http://***@host"),
        ("bob:hunter2@host:1", "***@host:1"),
        ("https://:hunter2@host", "https://***@host"),
        ("https://bob:hunter2/@host", "https://***@host"),
        ("https://bob:hunter2@[host", "https://***@[host"),
        ("https://bob:hunter2@h\u2100st", "https://***@h\u2100st"),
        ("https://bob:hunter2@evil@host:x", "https://***@host:x"),
    ],
)
def test_a_password_in_an_address_is_refused_and_never_repeated(variable, address, shown):
    for load_it in (lambda: load({variable: address}), lambda: load({}, {"endpoint": address})):
        with pytest.raises(SettingsError) as caught:
            load_it()
        assert "must be host:port" in str(caught.value)
        assert f"without user or password, got {shown!r}" in str(caught.value)
        logged = "".join(traceback.format_exception(caught.value))
        assert "hunter2" not in logged


def test_settings_do_not_print_their_secrets():
    settings = load({"INTROSPAN_SALT": "0123456789abcdef", "INTROSPAN_HEADERS": "authorization=hunter2"})
    assert settings.salt == b"0123456789abcdef"
    assert settings.headers == (("authorization", "hunter2"),)
    assert "0123456789abcdef" not in repr(settings)
    assert "hunter2" not in repr(settings)


def test_the_collectors_variables_are_not_ours():
    assert load({"INTROSPAN_COLLECTOR_DATA": "/data"}) == Settings()


@pytest.mark.parametrize(
    "environ",
    [
        {"INTROSPAN_ENABLED": "off"},
        {"OTEL_SDK_DISABLED": "TRUE"},
        {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "redis, introspan"},
        {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*"},
    ],
)
def test_capture_can_be_switched_off(environ):
    settings = load({"INTROSPAN_ENDPOINT": "host:1", **environ})
    assert not settings.enabled
    assert settings.off_because is not None


def test_our_own_switch_wins_over_opentelemetrys():
    assert load({"OTEL_SDK_DISABLED": "true", "INTROSPAN_ENABLED": "on"}).enabled


def test_resource_attributes_name_service_and_replica_unless_a_key_does():
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=chat,service.instance.id=pod%2D7,team=a%2Cb"}
    settings = load(environ)
    assert (settings.service_name, settings.replica) == ("chat", "pod-7")
    assert settings.resource_attributes == (("team", "a,b"),)
    settings = load({**environ, "OTEL_SERVICE_NAME": "named", "INTROSPAN_REPLICA": "r1"})
    assert (settings.service_name, settings.replica) == ("named", "r1")


def test_overrides_take_json_values():
    settings = load(
        {},
        {
            "layers": [5],
            "attention_layers": "all",
            "token_stride": 1,
            "projections": False,
            "attention_bytes": "1GiB",
            "headers": {"x-tenant": "a,b"},
            "endpoint": None,
        },
    )
    assert settings.layers.resolve(12) == (5,)
    assert settings.attention_layers.resolve(3) == (0, 1, 2)
    assert (settings.token_stride, settings.projections, settings.attention_bytes) == (1, False, 2**30)
    assert settings.headers == (("x-tenant", "a,b"),)


def test_client_certificate_and_key_come_together(tmp_path):
    certificate = tmp_path / "client.pem"
    certificate.write_text("pem")
    with pytest.raises(SettingsError, match="must be set together"):
        load({"INTROSPAN_CLIENT_KEY": str(certificate)})


def test_settings_are_hashable_values():
    assert hash(load({"INTROSPAN_ENDPOINT": "h:1"})) == hash(load({"INTROSPAN_ENDPOINT": "h:1"}))
    assert dataclasses.replace(load({}), replica="r") != load({})


@pytest.mark.parametrize(
    ("text", "depth", "layers"),
    [
        ("8", 30, (0, 4, 8, 12, 17, 21, 25, 29)),
        ("2", 30, (0, 29)),
        ("1", 30, (15,)),
        ("40", 3, (0, 1, 2)),
        ("all", 3, (0, 1, 2)),
        ("10,0,5,5", 30, (0, 5, 10)),
        ("5,", 30, (5,)),
    ],
)
def test_layer_forms(text, depth, layers):
    assert LayerSpec.parse("INTROSPAN_LAYERS", text).resolve(depth) == layers


def test_a_layer_beyond_the_model_is_named():
    with pytest.raises(SettingsError, match=r"INTROSPAN_LAYERS must name layers below 30, .* got 31"):
        LayerSpec.parse("INTROSPAN_LAYERS", "3,31").resolve(30)


def test_a_number_of_layers_is_that_number_evenly_spaced_with_both_ends():
    for depth in range(2, 40):
        for count in range(2, depth + 1):
            layers = LayerSpec("k", count).resolve(depth)
            gaps = [b - a for a, b in itertools.pairwise(layers)]
            assert len(layers) == count
            assert (layers[0], layers[-1]) == (0, depth - 1)
            assert max(gaps) - min(gaps) <= 1

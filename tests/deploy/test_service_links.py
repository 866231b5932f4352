"""Variables that Kubernetes adds to every pod of a namespace are not taken for settings."""

import pytest

from introspan.config import SettingsError, load
from introspan_collector.config import ConfigurationError, load_settings
from tests.deploy.rendered import rendered


def links(service):
    """What Kubernetes adds for a Service with a named port, see its documentation of environment variables."""
    name = service.upper().replace("-", "_")
    return {
        f"{name}_SERVICE_HOST": "10.0.0.11",
        f"{name}_SERVICE_PORT": "4317",
        f"{name}_SERVICE_PORT_GRPC": "4317",
        f"{name}_PORT": "tcp://10.0.0.11:4317",
        f"{name}_PORT_4317_TCP": "tcp://10.0.0.11:4317",
        f"{name}_PORT_4317_TCP_PROTO": "tcp",
        f"{name}_PORT_4317_TCP_PORT": "4317",
        f"{name}_PORT_4317_TCP_ADDR": "10.0.0.11",
    }


@pytest.mark.parametrize("service", ["introspan", "introspan-collector", "introspan-eu-collector"])
def test_a_service_beside_the_server_does_not_switch_capture_off(service):
    settings = load({**links(service), "INTROSPAN_ENDPOINT": "introspan-collector:4317"})
    assert settings.endpoint == "introspan-collector:4317"
    assert settings.off_because is None


def test_a_misspelt_setting_of_the_server_is_still_refused():
    with pytest.raises(SettingsError, match="INTROSPAN_PORTS"):
        load({"INTROSPAN_PORTS": "4317"})


def test_a_service_of_its_own_name_does_not_end_the_collector():
    assert load_settings(None, {}, links("introspan-collector")).grpc == "127.0.0.1:4317"


def test_a_misspelt_setting_of_the_collector_is_still_refused():
    with pytest.raises(ConfigurationError, match="INTROSPAN_COLLECTOR_PORTS"):
        load_settings(None, {}, {"INTROSPAN_COLLECTOR_PORTS": "4317"})


def test_the_charts_pods_get_no_such_variables_at_all():
    assert rendered().pod["spec"]["enableServiceLinks"] is False

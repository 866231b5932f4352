"""A real vLLM server whose probes raise answers over HTTP, bit for bit, what one without Introspan does; it says so."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from broken import EVERY_STEP, patience, write_plugin
from client import FIXED, choices
from deployment import serving
from engine import EVERYTHING

from tests.collector import Collector
from tests.patience import eventually

pytestmark = pytest.mark.slow  # two servers; test_harmless.py breaks the same probes in engines

ERRORS = 100
"""How often each probe may raise here; the requests below take half as many steps again."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory, model_directory, free_port):
    """Addresses of a server that never loads Introspan and of one whose probes raise, and the latter's collector."""
    folder = tmp_path_factory.mktemp("servers")
    with Collector(folder, free_port) as collector, ExitStack() as stack, ThreadPoolExecutor() as pool:
        environments = {
            "without": {"VLLM_PLUGINS": "none"},
            "broken": EVERYTHING
            | {"INTROSPAN_ENDPOINT": collector.grpc}
            | write_plugin(folder / "plugin", *EVERY_STEP.values(), patience(ERRORS)),
        }
        starting = [
            pool.submit(
                stack.enter_context,
                serving(model_directory, folder, free_port(), environment, f"vllm-{name}"),
            )
            for name, environment in environments.items()
        ]
        without, broken = (each.result() for each in starting)
        yield without, broken, collector


def test_a_server_whose_probes_raise_at_every_step_answers_the_same_bits_and_switches_them_off(servers):
    without, broken, collector = servers
    assert choices(broken, FIXED) == choices(without, FIXED)

    def disabled():
        found = collector.samples("introspan_capture_disabled")
        assert len(found) == len(EVERY_STEP), found
        return found

    found = eventually(disabled)
    for probe in EVERY_STEP:
        assert any(f'signal="{probe}"' in of and 'reason="probe_error"' in of for of in found), found
    assert collector.metric("introspan_sdk_probe_errors_total") >= ERRORS * len(EVERY_STEP)
    assert collector.metric("introspan_sdk_measured_rows_total") > ERRORS

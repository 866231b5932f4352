"""What dashboards and rules are tried on: one fleet, healthy and then faulty, for all tests of this folder."""

import pytest

from tests.deploy.fleet import running


@pytest.fixture(scope="session")
def fleet(tmp_path_factory, free_port, prometheus_program):
    with running(tmp_path_factory.mktemp("fleet"), free_port, prometheus_program) as found:
        yield found

"""What property tests share: the process in which kernels are interpreted."""

from collections.abc import Iterator

import pytest

from tests.interpreted import Interpreter


@pytest.fixture(scope="session")
def interpreter() -> Iterator[Interpreter]:
    """Calls kernels; started at the first call for it."""
    started = Interpreter()
    yield started
    started.close()

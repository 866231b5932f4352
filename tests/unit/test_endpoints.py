"""Trace and caller are read wherever a release of vLLM has the methods for it."""

import sys
from types import SimpleNamespace

import pytest

from introspan.capture.requests.endpoints import PLACES, having


class Checking:
    async def _check_model(self, request): ...


class Tracing(Checking):
    async def _get_trace_headers(self, headers): ...


NEWEST, MIDDLE, OLDEST = PLACES
# What each release has where: as docs/compatibility.md says, of 0.32, 0.25 to 0.31, 0.24, and those before.
RELEASES = {
    "0.32": {NEWEST: Tracing},
    "0.25": {NEWEST: Checking, MIDDLE: Tracing},
    "0.24": {NEWEST: Checking, OLDEST: Tracing},
    "0.23": {OLDEST: Tracing},
}


@pytest.fixture
def release(request, monkeypatch):
    """Modules of one release in the place of the installed one's."""
    for place in PLACES:
        module, name = place
        found = request.param.get(place)
        # None is what Python takes for a module that is not there.
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{name: found}) if found else None)
    return request.param


@pytest.mark.parametrize("release", RELEASES.values(), ids=RELEASES, indirect=True)
def test_headers_are_read_by_the_class_that_has_the_method(release):
    assert having("_get_trace_headers") is Tracing
    assert having("_check_model") is (Tracing if Checking not in release.values() else Checking)


@pytest.mark.parametrize("release", [{}, {NEWEST: Checking}], indirect=True)
@pytest.mark.usefixtures("release")
def test_a_release_that_has_it_nowhere_is_told_where_it_was_looked_for():
    with pytest.raises(
        AttributeError, match="_get_trace_headers; looked at BaseServing, GenerateBaseServing"
    ):
        having("_get_trace_headers")

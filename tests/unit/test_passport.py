"""Claims on what travels in sampling parameters from the API process to the worker."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from introspan.capture.requests.passport import KEY, Passport, read, stamp


class Parameters:
    """As vLLM's SamplingParams: several requests may share one, and a client may fill extra_args."""

    def __init__(self, extra_args=None):
        self.temperature = 0.7
        self.extra_args = extra_args


TRACE, SPAN = bytes(range(16)), bytes(range(8))
PASSPORT = Passport("chatcmpl-1", TRACE, SPAN, 2**64 - 1)


@given(
    st.text(max_size=80),
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=8, max_size=8),
    st.none() | st.integers(0, 2**64 - 1),
)
def test_what_is_stamped_is_read(request_id, trace_id, span_id, cluster_key):
    passport = Passport(request_id, trace_id, span_id, cluster_key)
    assert read(stamp(Parameters(), passport)) == passport


def test_stamping_changes_neither_shared_parameters_nor_their_extra_args():
    extra = {"theirs": [1, 2]}
    shared = Parameters(extra)
    before = copy.deepcopy(vars(shared))
    first, second = stamp(shared, PASSPORT), stamp(shared, Passport("chatcmpl-2"))
    assert vars(shared) == before
    assert shared.extra_args is extra
    assert (read(first), read(second)) == (PASSPORT, Passport("chatcmpl-2"))
    assert first.extra_args["theirs"] is extra["theirs"]
    assert first.temperature == shared.temperature


def test_a_client_cannot_forge_a_passport_by_filling_extra_args():
    forged = stamp(Parameters(), Passport("someone-else", TRACE, SPAN, 1)).extra_args
    assert read(stamp(Parameters(forged), PASSPORT)) == PASSPORT


@pytest.mark.parametrize(
    "carried",
    [
        "text",
        7,
        None,
        [],
        ["id", TRACE.hex(), SPAN.hex()],
        [7, TRACE.hex(), SPAN.hex(), None],
        ["id", "no hex", SPAN.hex(), None],
        ["id", TRACE.hex()[2:], SPAN.hex(), None],
        ["id", TRACE.hex(), TRACE.hex(), None],
        ["id", TRACE.hex(), SPAN.hex(), "no hex"],
        ["id", TRACE.hex(), SPAN.hex(), 7],
        ["id", TRACE.hex(), SPAN.hex(), "1" + "0" * 16],
        ["id", TRACE.hex(), SPAN.hex(), "-1"],
        ["id", 7, SPAN.hex(), None],
    ],
)
def test_what_is_no_passport_reads_as_none(carried):
    assert read(Parameters({KEY: carried})) is None


@pytest.mark.parametrize("params", [None, object(), Parameters(), Parameters({}), Parameters({"other": 1})])
def test_parameters_without_a_passport_read_as_none(params):
    assert read(params) is None

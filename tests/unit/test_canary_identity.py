"""Whose requests a worker takes for canaries: only those of whoever knows the key."""

from types import SimpleNamespace

import pytest

from introspan.admission import Admission
from introspan.capture.identity import Identity
from introspan.capture.passport import Passport, stamp
from introspan_wire import canary
from introspan_wire.canary import VALID_SECONDS, CanaryId, find, is_genuine, token

KEY, OTHER_KEY = b"0123456789abcdef", b"0123456789abcdeX"
ID = CanaryId("0a1b2c3d", "short", "00112233445566aa")
OTHER = CanaryId("0a1b2c3d", "long", "00112233445566aa")
NOW = 1_800_000_000.0


def of(request_id, given, *, key=KEY, now=NOW, rate=1.0):
    """The request that a worker makes of one that came with this id and this token."""
    params = SimpleNamespace(extra_args=None if given is None else {canary.XARG: given})
    new = SimpleNamespace(
        req_id=f"cmpl-{request_id}-0-deadbeef",
        sampling_params=stamp(params, Passport(f"cmpl-{request_id}-0")),
        prompt_token_ids=[1, 2, 3],
        num_computed_tokens=0,
        lora_request=None,
    )
    return Identity(b"s" * 16, Admission(rate, 1e9), key, lambda: now).of(new)


def test_a_token_made_with_the_key_makes_a_canary():
    request = of(ID, token(KEY, ID, NOW))
    assert request.is_canary
    assert find(request.request_id) == ID


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        7,
        ["x"],
        token(OTHER_KEY, ID, NOW),
        token(KEY, OTHER, NOW),
        token(KEY, ID, NOW - VALID_SECONDS - 1),
        token(KEY, ID, NOW + VALID_SECONDS + 1),
        token(KEY, ID, NOW - 5).replace(str(int(NOW - 5)), str(int(NOW))),
        token(KEY, ID, NOW)[:-1],
        token(KEY, ID, NOW) + "0",
        token(KEY, ID, NOW).upper(),
        "9" * 5_000 + ":" + "0" * 64,
        f"{int(NOW)}:" + "é" * 64,
    ],
)
def test_every_other_token_makes_ordinary_traffic(given):
    assert not of(ID, given).is_canary


def test_a_token_is_good_for_ten_minutes_of_difference_between_clocks():
    for seconds in (-VALID_SECONDS, VALID_SECONDS):
        assert of(ID, token(KEY, ID, NOW + seconds)).is_canary


def test_without_a_key_nothing_is_a_canary():
    assert not of(ID, token(KEY, ID, NOW), key=b"").is_canary
    assert not of(ID, token(b"", ID, NOW), key=b"").is_canary


@pytest.mark.parametrize(
    "request_id",
    [
        "me",
        "canary-0a1b2c3d-short-00112233445566a",
        "canary-0A1B2C3D-short-00112233445566aa",
        "canary-0a1b2c3d-SHORT-00112233445566aa",
    ],
)
def test_an_id_that_names_no_question_is_no_canary_whatever_its_token(request_id):
    assert find(request_id) is None
    assert not is_genuine(KEY, request_id, token(KEY, ID, NOW), NOW)


def test_a_canary_is_measured_where_of_traffic_one_request_in_a_million_is():
    assert of(ID, None, rate=1e-6) is None
    assert of(ID, token(KEY, ID, NOW), rate=1e-6).sampling_probability == 1.0


def test_names_of_a_canary_survive_what_engines_put_around_them():
    for around in ("{}", "cmpl-{}-0", "chatcmpl-{}", "1_cmpl-{}-0-0a1b2c3d"):
        assert find(around.format(ID)) == ID

"""Whose requests a worker takes for canaries: those of whoever knows the key, each once, and of the text it signed."""

from collections import Counter
from types import SimpleNamespace

import pytest

from introspan.admission import Admission
from introspan.capture.requests.canary_tokens import REFUSED, REPEATED, CanaryTokens
from introspan.capture.requests.identity import Identity
from introspan.capture.requests.passport import Passport, stamp
from introspan_wire import canary
from introspan_wire.canary import VALID_SECONDS, CanaryId, find, genuine, token

KEY, OTHER_KEY = b"0123456789abcdef", b"0123456789abcdeX"
ID = CanaryId("0a1b2c3d", "short", "00112233445566aa")
OTHER = CanaryId("0a1b2c3d", "long", "00112233445566aa")
NOW = 1_800_000_000.0
PROMPT = [1, 2, 3]
MOST = 8
NONCE = "00000000000000aa"


def made(*, key=KEY, name=ID, prompt=PROMPT, most=MOST, now=NOW, nonce=NONCE):
    return token(key, name, prompt, most, now, nonce)


def new(prompt=PROMPT, adapter=None, **asked):
    """As vLLM's NewRequestData of a canary, and its SamplingParams, but for what is asked otherwise."""
    parameters = {
        "extra_args": None,
        "temperature": 0.0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "max_tokens": MOST,
        "min_tokens": 0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "logit_bias": None,
        "bad_words": [],
        "allowed_token_ids": None,
        "structured_outputs": None,
        "seed": None,
    }
    return SimpleNamespace(
        sampling_params=SimpleNamespace(**parameters | asked),
        prompt_token_ids=prompt,
        num_computed_tokens=0,
        lora_request=adapter and SimpleNamespace(lora_name=adapter),
    )


class Worker:
    """One worker, its clock, and what it has refused."""

    def __init__(self, key=KEY, rate=1.0):
        self.now, self.refused = NOW, Counter()
        self._identity = Identity(b"s" * 16, Admission(rate, 1e9), key, lambda: self.now, drops=self.refused)

    def of(self, request_id, given, prompt=PROMPT, **asked):
        """The request that it makes of one that came with this id and this token, and is asked so."""
        found = new(prompt, **asked, extra_args=None if given is None else {canary.XARG: given})
        found.req_id = f"cmpl-{request_id}-0-deadbeef"
        found.sampling_params = stamp(found.sampling_params, Passport(f"cmpl-{request_id}-0"))
        return self._identity.of(found)


@pytest.fixture
def worker():
    return Worker()


def test_a_token_made_with_the_key_makes_a_canary(worker):
    request = worker.of(ID, made())
    assert request.is_canary
    assert find(request.request_id) == ID
    assert not worker.refused


@pytest.mark.parametrize(
    "given",
    [
        "",
        7,
        ["x"],
        made(key=OTHER_KEY),
        made(name=OTHER),
        made(now=NOW - VALID_SECONDS - 1),
        made(now=NOW + VALID_SECONDS + 1),
        made(now=NOW - 5).replace(str(int(NOW - 5)), str(int(NOW))),
        made().replace(NONCE, "00000000000000ab"),
        made()[:-1],
        made() + "0",
        made().upper(),
        "9" * 5_000 + f":{NONCE}:8:" + "0" * 64,
        f"{int(NOW)}:{NONCE}:8:" + "é" * 64,
        made().replace(":8:", ":9:"),
        made().replace(":8:", ":"),
    ],
)
def test_every_other_token_makes_ordinary_traffic_and_is_counted(worker, given):
    assert not worker.of(ID, given).is_canary
    assert worker.refused == {REFUSED: 1}


def test_traffic_that_never_heard_of_canaries_is_not_counted(worker):
    assert not worker.of("me", None).is_canary
    assert not worker.refused


@pytest.mark.parametrize("prompt", [[1, 2, 4], [1, 2], [1, 2, 3, 4], [3, 2, 1], []])
def test_another_text_under_the_same_token_is_traffic(worker, prompt):
    assert not worker.of(ID, made(), prompt).is_canary
    assert worker.refused == {REFUSED: 1}
    assert worker.of(ID, made()).is_canary, "what was refused did not use it up"


@pytest.mark.parametrize(
    "asked",
    [
        {"temperature": 1.0},
        {"max_tokens": MOST + 1},
        {"max_tokens": None},
        {"min_tokens": 2},
        {"presence_penalty": 0.5},
        {"frequency_penalty": 0.5},
        {"repetition_penalty": 1.1},
        {"logit_bias": {7: 100.0}},
        {"bad_words": ["the"]},
        {"allowed_token_ids": [7]},
        {"structured_outputs": "yes or no"},
        {"adapter": "theirs"},
    ],
    ids=str,
)
def test_the_same_text_asked_in_another_way_under_the_same_token_is_traffic(worker, asked):
    assert not worker.of(ID, made(), **asked).is_canary
    assert worker.refused == {REFUSED: 1}
    assert worker.of(ID, made()).is_canary, "what was refused did not use it up"


def test_fewer_tokens_than_were_signed_are_a_canary(worker):
    """A server may have a limit of its own."""
    assert worker.of(ID, made(), max_tokens=1).is_canary


def test_a_token_makes_one_canary_and_what_comes_after_is_traffic_and_counted(worker):
    assert worker.of(ID, made()).is_canary
    assert not worker.of(ID, made()).is_canary
    worker.now += 2 * VALID_SECONDS
    assert not worker.of(ID, made(now=NOW)).is_canary, "nor is it good for another when it has expired"
    assert worker.refused == {REPEATED: 1, REFUSED: 1}
    assert worker.of(ID, made(now=worker.now, nonce="00000000000000ab")).is_canary


def test_a_token_of_a_clock_that_is_ahead_is_remembered_for_as_long_as_it_is_good(worker):
    ahead = made(now=NOW + VALID_SECONDS)
    assert worker.of(ID, ahead).is_canary
    worker.now += 2 * VALID_SECONDS
    assert not worker.of(ID, ahead).is_canary
    assert worker.refused == {REPEATED: 1}


def test_memory_of_tokens_is_bounded_and_none_is_forgotten_while_it_is_good():
    now, refused = [NOW], Counter()
    tokens = CanaryTokens(KEY, refused, lambda: now[0], most=8)
    given = [made(nonce=f"{i:016x}") for i in range(10)]
    assert [tokens.admit(str(ID), new(), one) for one in given] == [True] * 8 + [False] * 2
    assert not any(tokens.admit(str(ID), new(), one) for one in given)
    assert refused == {REPEATED: 12}
    now[0] += VALID_SECONDS - 1
    assert not any(tokens.admit(str(ID), new(), one) for one in given[:8])
    now[0] += 1
    assert not any(tokens.admit(str(ID), new(), one) for one in given[:8]), "good to the last second"
    now[0] += VALID_SECONDS + 1
    assert tokens.admit(str(ID), new(), made(now=now[0])), "those that expired made room"


def test_a_token_is_good_for_ten_minutes_of_difference_between_clocks():
    for seconds in (-VALID_SECONDS, VALID_SECONDS):
        assert Worker().of(ID, made(now=NOW + seconds)).is_canary


def test_without_a_key_nothing_is_a_canary():
    worker = Worker(key=b"")
    assert not worker.of(ID, made()).is_canary
    assert not worker.of(ID, made(key=b"")).is_canary


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
    assert genuine(KEY, request_id, PROMPT, made(), NOW) is None


def test_a_canary_is_measured_where_of_traffic_one_request_in_a_million_is():
    worker = Worker(rate=1e-6)
    assert worker.of(ID, None) is None
    assert worker.of(ID, made()).sampling_probability == 1.0


def test_names_of_a_canary_survive_what_engines_put_around_them():
    for around in ("{}", "cmpl-{}-0", "chatcmpl-{}", "1_cmpl-{}-0-0a1b2c3d"):
        assert find(around.format(ID)) == ID

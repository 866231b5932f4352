"""Claims on what a worker calls a request, and on which it measures."""

from types import SimpleNamespace

import pytest

from introspan.admission import Admission
from introspan.capture.requests.identity import Identity
from introspan.capture.requests.passport import Passport, stamp
from introspan.context import cluster_key, is_chosen, request_hash

SALT = b"0123456789abcdef"
TRACE, SPAN = bytes(range(16)), bytes(range(8))


def new(worker_id, passport=None, prompt=(5, 6, 7), **more):
    """As vLLM's NewRequestData."""
    params = SimpleNamespace(extra_args=None)
    return SimpleNamespace(
        req_id=worker_id,
        sampling_params=params if passport is None else stamp(params, passport),
        prompt_token_ids=list(prompt),
        num_computed_tokens=more.get("cached", 0),
        lora_request=more.get("lora"),
    )


def identity(rate=1.0):
    return Identity(SALT, Admission(rate, row_budget=1e9))


@pytest.mark.parametrize(
    ("worker_id", "passport", "expected"),
    [
        ("chatcmpl-1-0a1b2c3d", Passport("chatcmpl-1"), "chatcmpl-1"),
        # vLLM numbers the samples of one request, in front of what it made of the id.
        ("0_chatcmpl-1-0a1b2c3d", Passport("chatcmpl-1"), "0_chatcmpl-1"),
        ("12_chatcmpl-1-0a1b2c3d", Passport("chatcmpl-1"), "12_chatcmpl-1"),
        # Ids that look as if they had been numbered, or made longer, by vLLM.
        ("3_me-0a1b2c3d", Passport("3_me"), "3_me"),
        ("1_3_me-0a1b2c3d", Passport("3_me"), "1_3_me"),
        ("1_1-0a1b2c3d", Passport("1_1"), "1_1"),
        ("me-00000000-0a1b2c3d", Passport("me-00000000"), "me-00000000"),
        # Without an API process in front there is no passport.
        ("me-0a1b2c3d", None, "me"),
        ("1_me-0a1b2c3d", None, "1_me"),
        ("me", None, "me"),
    ],
)
def test_a_request_is_called_what_its_client_called_it(worker_id, passport, expected):
    request = identity().of(new(worker_id, passport))
    assert request.request_id == expected
    assert request.key == worker_id
    assert request.hash == request_hash(expected)


@pytest.mark.parametrize("passport", [None, Passport("x" * 1_000)])
@pytest.mark.parametrize("sample", ["", "7_"])
def test_of_a_long_id_256_characters_are_kept_and_the_samples_number_in_front(passport, sample):
    worker_id = sample + "x" * 1_000 + "-0a1b2c3d"
    request = identity().of(new(worker_id, passport))
    assert request.request_id == (sample + "x" * 256)[:256]
    assert request.key == worker_id


def test_trace_and_caller_come_from_the_passport():
    request = identity().of(new("a-0a1b2c3d", Passport("a", TRACE, SPAN, 99)))
    assert (request.trace_id, request.span_id, request.cluster_key) == (TRACE, SPAN, 99)


@pytest.mark.parametrize("passport", [None, Passport("a")])
def test_without_a_known_caller_the_beginning_of_the_prompt_stands_for_it(passport):
    prompt = list(range(200))
    request = identity().of(new("a-0a1b2c3d", passport, prompt))
    assert request.cluster_key == cluster_key(SALT, prompt_token_ids=prompt)
    assert request.cluster_key == identity().of(new("b-0a1b2c3d", passport, prompt[:64])).cluster_key
    assert request.cluster_key != identity().of(new("b-0a1b2c3d", passport, prompt[1:])).cluster_key
    assert (request.trace_id, request.span_id) == (bytes(16), bytes(8))


def test_prompt_and_cached_tokens_and_adapter_are_the_engines():
    lora = SimpleNamespace(lora_name="legal")
    request = identity().of(new("a-0a1b2c3d", prompt=range(300), cached=256, lora=lora))
    assert (request.prompt_tokens, request.cached_tokens, request.adapter) == (300, 256, "legal")


def test_of_many_requests_those_are_measured_whose_hash_says_so():
    ids = [f"chatcmpl-{i}" for i in range(400)]
    of = identity(rate=0.25).of
    measured = {id_ for id_ in ids if of(new(f"{id_}-0a1b2c3d", Passport(id_))) is not None}
    assert measured == {id_ for id_ in ids if is_chosen(request_hash(id_), 0.25)}
    assert of(new(f"{min(measured)}-0a1b2c3d", Passport(min(measured)))).sampling_probability == 0.25


def test_a_request_that_generates_no_text_or_has_no_tokens_is_not_measured():
    pooling = new("a-0a1b2c3d")
    pooling.sampling_params = None
    embedded = new("a-0a1b2c3d")
    embedded.prompt_token_ids = None
    assert identity().of(pooling) is None
    assert identity().of(embedded) is None

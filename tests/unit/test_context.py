"""Claims on what identifies a request: trace context, cluster key, hash."""

import subprocess
import sys
from collections import Counter

import pytest

from introspan.context import CLUSTER_PROMPT_TOKENS, cluster_key, is_chosen, parse_traceparent, request_hash

SALT = b"0123456789abcdef"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    "header", [f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00", f"cc-{TRACE}-{SPAN}-01-what"]
)
def test_a_valid_traceparent_gives_its_raw_ids(header):
    assert parse_traceparent(header) == (bytes.fromhex(TRACE), bytes.fromhex(SPAN))


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}g-{SPAN}-01",
    ],
)
def test_an_invalid_traceparent_gives_none(header):
    assert parse_traceparent(header) is None


def test_a_cluster_key_is_equal_for_one_caller_and_differs_between_callers_kinds_and_salts():
    keys = [
        cluster_key(SALT, api_key="k1"),
        cluster_key(SALT, api_key="k2"),
        cluster_key(SALT, user="k1"),
        cluster_key(SALT, prompt_token_ids=list(b"k1")),
        cluster_key(SALT + b"x", api_key="k1"),
        cluster_key(b"", api_key="k1"),
    ]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 2**64 for key in keys)
    assert keys[0] == cluster_key(SALT, api_key="k1", prompt_token_ids=[1, 2])


def test_users_behind_one_api_key_are_told_apart():
    ann, ben = (cluster_key(SALT, api_key="the gateway's", user=user) for user in ("ann", "ben"))
    assert ann != ben
    assert ann == cluster_key(SALT, user="ann")


def test_a_caller_is_the_user_else_the_api_key_else_the_beginning_of_the_prompt():
    prompt = list(range(200))
    same_beginning = [*prompt[:CLUSTER_PROMPT_TOKENS], 7]
    other_beginning = [9, *prompt[1:]]
    by_prompt = cluster_key(SALT, api_key="", user="", prompt_token_ids=prompt)
    assert by_prompt == cluster_key(SALT, prompt_token_ids=same_beginning)
    assert by_prompt != cluster_key(SALT, prompt_token_ids=other_beginning)
    assert by_prompt != cluster_key(SALT, prompt_token_ids=prompt[: CLUSTER_PROMPT_TOKENS - 1])
    assert cluster_key(SALT, user="u", prompt_token_ids=prompt) == cluster_key(SALT, user="u")


def test_a_salt_of_any_length_counts_as_a_whole():
    assert cluster_key(b"s" * 100 + b"a", user="u") != cluster_key(b"s" * 100 + b"b", user="u")


def test_a_request_hashes_alike_in_every_process():
    script = "from introspan.context import request_hash; print(request_hash('chatcmpl-1'))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) == request_hash("chatcmpl-1")


def test_the_share_of_chosen_requests_is_the_probability_and_choices_are_nested():
    hashes = [request_hash(f"chatcmpl-{i}") for i in range(20_000)]
    chosen = {p: {h for h in hashes if is_chosen(h, p)} for p in (0.0, 0.1, 0.5, 1.0)}
    assert len(chosen[0.0]) == 0
    assert len(chosen[1.0]) == len(hashes)
    assert abs(len(chosen[0.1]) - 2_000) < 5 * (20_000 * 0.1 * 0.9) ** 0.5
    assert chosen[0.1] < chosen[0.5]


def test_burst_phases_of_chosen_requests_are_uniform():
    hashes = [request_hash(f"chatcmpl-{i}") for i in range(100_000)]
    phases = Counter(h % 24 for h in hashes if is_chosen(h, 0.25))
    expected = sum(phases.values()) / 24
    chi_squared = sum((phases[phase] - expected) ** 2 / expected for phase in range(24))
    assert chi_squared < 60  # 23 degrees of freedom: exceeded with probability 4e-5

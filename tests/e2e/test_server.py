"""Claims on a real vLLM server whose only sign of Introspan is its environment: whose numbers are whose."""

import itertools
import subprocess
import time

import duckdb
import httpx
import pytest
from client import COMPLETION, RESPONSE, SENTENCE, Ask, name, talk, trace
from deployment import MODEL
from observed import last_of_a_burst, measured_among, observed, traces_of

from tests.patience import eventually

pytestmark = pytest.mark.alone


def test_eight_requests_at_once_keep_their_own_trace_and_the_id_that_their_client_sees(deployment, collector):
    asks = [
        *(Ask(f"Tell me about number {i}.", trace=trace(), id=name(), stream=i % 2 == 0) for i in range(4)),
        *(
            Ask("Once upon a time", COMPLETION, trace=trace(), id=name(), stream=stream)
            for stream in (True, False)
        ),
        Ask("I come without a trace.", id=name(), stream=True),
        Ask("So do I.", id=name()),
    ]
    answers = talk(deployment.vllm, *asks)
    assert [answer.status for answer in answers] == [200] * 8
    seen = [
        # A completion may have several prompts; the engine knows each by its place.
        f"{answer.id}-0" if one.path == COMPLETION else answer.id
        for one, answer in zip(asks, answers, strict=True)
    ]
    assert [id_.removesuffix("-0").split("-", 1)[1] for id_ in seen] == [one.id for one in asks]
    found = observed(collector, *seen)
    for id_, one in zip(seen, asks, strict=True):
        assert traces_of(found[id_]) == {one.trace or (None, None)}, one


def test_a_streamed_response_of_the_newest_api_keeps_its_trace(deployment, collector):
    one = Ask("Hello.", RESPONSE, trace=trace(), stream=True)
    (answer,) = talk(deployment.vllm, one)
    # A response may take the model several turns; the engine knows each by its place.
    assert traces_of(observed(collector, f"{answer.id}_0")[f"{answer.id}_0"]) == {one.trace}


def test_an_invalid_traceparent_is_no_trace_and_the_request_is_answered(deployment, collector):
    one = Ask("Hello.", id=name(), headers={"traceparent": "00-zero-one-01"})
    (answer,) = talk(deployment.vllm, one)
    assert answer.status == 200
    assert traces_of(observed(collector, answer.id)[answer.id]) == {(None, None)}


def test_each_of_two_samples_has_its_number_in_front_and_the_trace_of_both(deployment, collector):
    one = Ask("Say something.", trace=trace(), id=name(), body={"n": 2})
    (answer,) = talk(deployment.vllm, one)
    found = observed(collector, f"0_{answer.id}", f"1_{answer.id}")
    assert all(traces_of(of) == {one.trace} for of in found.values())
    assert answer.id not in {of["request_id"] for of in collector.observations()}


def test_a_client_that_chooses_a_long_id_gets_256_characters_of_it(deployment, collector):
    (answer,) = talk(deployment.vllm, Ask("Hello.", id=name() + "x" * 1_000))
    assert answer.status == 200
    assert len(answer.id) > 1_000
    observed(collector, answer.id[:256])


def test_callers_are_told_apart_by_key_user_or_prompt_and_nothing_of_them_is_kept(deployment, collector):
    def called(text, key=None, user=None):
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return Ask(text, id=name(), headers=headers, body={} if user is None else {"user": user}, tokens=2)

    keys, users = ("sk-first-of-two-secrets", "sk-second-of-two-secrets"), ("grace@example.org", "ada")
    asks = [
        called("What is a tide?", key=keys[0]),
        called("What is a heron?", key=keys[0]),
        called("What is a tide?", key=keys[1]),
        called("What is a tide?", user=users[0]),
        called("What is a heron?", user=users[0]),
        called("What is a tide?", user=users[1]),
        called("What is a tide?"),
        called("What is a tide?"),
        called("What is a heron?"),
    ]
    answers = talk(deployment.vllm, *asks)
    clusters = eventually(lambda: archived_clusters(collector, [answer.id for answer in answers]))
    a, a_again, b, c, c_again, d, e, e_again, f = clusters
    assert (a, c, e) == (a_again, c_again, e_again)
    assert len({a, b, c, d, e, f}) == 6
    written = b"".join(file.read_bytes() for file in (collector.data / "log").iterdir())
    for secret in (*keys, *users[:1], "heron"):
        assert secret.encode() not in written
    assert answers[0].id.encode() in written, "the log is where the secrets would be"


def archived_clusters(collector, request_ids):
    """The cluster key of each request, or nothing while one of them is not in the archive."""
    parts = collector.data / "archive" / "observations" / "**" / "*.parquet"
    try:
        rows = duckdb.sql(f"SELECT DISTINCT request_id, cluster_key FROM read_parquet('{parts}')").fetchall()
    except duckdb.IOException:
        return []
    assert len(dict(rows)) == len(rows), "a request has one cluster key"
    return [dict(rows)[id_] for id_ in request_ids] if set(request_ids) <= set(dict(rows)) else []


def test_positions_and_measured_rows_are_those_of_the_request(deployment, collector):
    id_ = name()
    tokens = last_of_a_burst(f"chatcmpl-{id_}", least=90)
    (answer,) = talk(deployment.vllm, Ask(SENTENCE, trace=trace(), id=id_, tokens=tokens))
    prompt_tokens = answer.usage["prompt_tokens"]
    assert answer.usage["completion_tokens"] == tokens
    # The last token is delivered and never fed back, so it has no row.
    prompt, *decoded = observed(collector, answer.id, last=[prompt_tokens + tokens - 2])[answer.id]
    assert (prompt["kind"], prompt["token_start"], prompt["token_count"]) == ("prompt", prompt_tokens - 1, 1)
    assert {(one["prompt_tokens"], one["cached_tokens"]) for one in (prompt, *decoded)} == {
        (prompt_tokens, 0)
    }
    assert {one["kind"] for one in decoded} == {"decoded"}
    assert decoded[0]["token_start"] == prompt_tokens
    for before, after in itertools.pairwise(decoded):
        assert after["token_start"] == before["token_start"] + before["token_count"]
        assert after["segment"] == before["segment"] + 1
    assert sum(one["measured_count"] for one in decoded) == measured_among(answer.id, tokens - 1)
    assert prompt["measured_count"] == 1


def test_a_prompt_that_was_served_before_is_reported_as_cached(deployment, collector):
    text = f"{name()} " + SENTENCE * 20
    first, second = (talk(deployment.vllm, Ask(text, COMPLETION, tokens=2))[0] for _ in range(2))
    prompt_tokens = first.usage["prompt_tokens"]
    found = observed(collector, f"{first.id}-0", f"{second.id}-0")
    assert {one["cached_tokens"] for one in found[f"{first.id}-0"]} == {0}
    # Whole blocks of 128 tokens, and never the last token: its logits are needed.
    cached = (prompt_tokens - 1) // 128 * 128
    assert cached >= 128
    assert {one["cached_tokens"] for one in found[f"{second.id}-0"]} == {cached}
    assert found[f"{second.id}-0"][0]["token_start"] == prompt_tokens - 1


def test_a_trace_is_found_as_an_exemplar_in_prometheus_and_by_its_request_id(deployment, collector):
    one = Ask("Which of my layers is at work?", trace=trace(), id=name(), tokens=40)
    began = time.time()
    (answer,) = talk(deployment.vllm, one)

    def exemplars():
        found = deployment.query(
            "query_exemplars",
            query='{__name__=~"introspan_.+_bucket"}',
            start=began,
            end=time.time(),
        )
        return [
            series["seriesLabels"]
            for series in found
            for item in series["exemplars"]
            if item["labels"]["trace_id"] == one.trace[0]
        ]

    labels = eventually(exemplars)
    assert {of["model"] for of in labels} == {MODEL}
    assert {"introspan_output_entropy_nats_bucket", "introspan_attention_entropy_nats_bucket"} <= {
        of["__name__"] for of in labels
    }
    found = collector.observations("--request-id", answer.id)
    assert {of["request_id"] for of in found} == {answer.id}
    assert traces_of(found) == {one.trace}
    assert all(of["values"] for of in found)


def test_prometheus_has_the_layers_of_the_served_model(deployment):
    talk(deployment.vllm, Ask("Hello.", tokens=30))

    def layers(metric):
        result = deployment.query("query", query=f'{metric}{{model="{MODEL}"}}')["result"]
        return sorted(int(one["metric"]["layer"]) for one in result)

    assert eventually(lambda: layers("introspan_residual_log_rms_window_mean")) == [
        *(0, 4, 8, 12, 17, 21, 25, 29)
    ]
    attention = eventually(lambda: layers("introspan_attention_entropy_window_mean_nats"))
    assert (len(attention), attention[0], attention[-1]) == (4, 0, 29)


def test_every_signal_is_on_and_promtool_finds_nothing_wrong_with_the_metrics(
    deployment, collector, promtool_program
):
    talk(deployment.vllm, Ask("Hello.", tokens=30))
    assert eventually(lambda: collector.samples("introspan_sdk_measured_rows_total"))
    assert collector.samples("introspan_capture_disabled") == {}
    assert collector.samples("introspan_sdk_dropped_segments_total") == {}
    assert collector.samples("introspan_sdk_dropped_rows_total") == {}
    assert set(collector.samples("introspan_sdk_probe_errors_total").values()) == {0}
    done = subprocess.run(
        [promtool_program, "check", "metrics"],
        input=collector.get("/metrics").content,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_a_wrong_request_is_refused_as_ever_and_leaves_nothing(deployment, collector):
    wrong = Ask("Hello.", id=name(), trace=trace(), body={"model": "another"})
    (refused,) = talk(deployment.vllm, wrong)
    (good,) = talk(deployment.vllm, Ask("Hello.", id=name()))
    assert refused.status == httpx.codes.NOT_FOUND
    found = observed(collector, good.id)
    assert traces_of(found[good.id]) == {(None, None)}
    assert not any(wrong.id in one["request_id"] for one in collector.observations())

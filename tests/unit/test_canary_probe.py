"""How a served model is asked, and what comes of servers that are down, slow, strict or something else altogether."""

import time

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from introspan_collector.cli import canary as command
from introspan_collector.probe.canary import Asker, Target
from introspan_collector.probe.conversation import RANK_HEADER
from introspan_collector.probe.job import ProbeJob
from introspan_collector.probe.report import ReportError
from introspan_collector.probe.settings import ProbeSettings
from introspan_collector.suite import DIGEST, QUESTIONS
from introspan_wire import canary
from introspan_wire.signals import Kind
from tests.patience import eventually
from tests.served import RECORDED, serve

KEY = b"0123456789abcdef"


@pytest.fixture
def served():
    with serve() as running:
        yield running


def asked(target, **how):
    rows = []
    results = Asker(target, lambda model, rank, table: rows.append((model, rank, table)), **how).ask()
    return (results[0] if len(results) == 1 else results), rows


def test_a_round_asks_every_question_and_hands_on_every_position(served):
    result, rows = asked(Target(served.url), clock=lambda: 1_000.0)
    assert (result.model, result.answered, result.error) == ("smollm2", 5, "")
    assert [canary.find(call[2]).question for call in served.asked] == [q.name for q in QUESTIONS]
    by_name = {}
    for model, rank, table in rows:
        assert (model, rank) == ("smollm2", None)
        assert table.schema.kind is Kind.CANARY
        by_name[len(by_name)] = table
    text = RECORDED["text"]["choices"][0]
    table = by_name[0]
    tokens = [*text["prompt_token_ids"], *text["token_ids"]]
    assert table.token_start.tolist() == list(range(len(tokens) - 1))
    assert table.values[:, 0].tolist() == tokens[1:]
    prompt = [list(position.values()) for position in text["prompt_logprobs"][1:]]
    assert table.values[0, 1] == np.float32(prompt[0][0]["logprob"]), (
        "the own token comes first in vLLM's answer"
    )
    generated = text["logprobs"]["token_logprobs"]
    assert table.values[-2:, 1].tolist() == [np.float32(one) for one in generated]
    top = table.values[:, 2:22]
    assert (np.diff(top, axis=1) <= 0).all(), "likeliest first"
    chat = RECORDED["chat"]
    assert by_name[2].prompt_tokens[0] == len(chat["prompt_token_ids"])
    assert len(by_name[2].request_id) == len(chat["prompt_token_ids"]) + 1
    assert by_name[3].token_start[0] == len(text["prompt_token_ids"]) - 1, (
        "of what is read from the cache no prompt"
    )


def test_questions_made_of_others_are_their_tokens_under_the_same_salt(served):
    asked(Target(served.url))
    bodies = [body for _, body, _, _ in served.asked]
    text = RECORDED["text"]["choices"][0]
    assert bodies[3]["prompt"] == text["prompt_token_ids"]
    assert "prompt_logprobs" not in bodies[3]
    assert bodies[4]["prompt"] == [*text["prompt_token_ids"], *text["token_ids"][:-1]]
    assert len({body["cache_salt"] for body in bodies}) == 1
    plain = {"temperature": 0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    assert all(plain.items() <= body.items() and "vllm_xargs" not in body for body in bodies)


def test_with_the_key_every_request_is_signed_and_others_run_beside(served):
    for _ in range(4):
        asked(Target(served.url, key=KEY))
    names = [canary.find(call[2]).question for call in served.asked]
    assert all(_pass(call).most_tokens == call[1]["max_tokens"] for call in served.asked)
    assert names.count("short") == 4
    assert names.count("beside") > 4, "so that the batch is another one each time"


def _pass(call):
    """What the token of a call says to a worker that computes the tokens which the recorded server answers with."""
    _, body, request_id, _ = call
    of_text = RECORDED["text"]["choices"][0]["prompt_token_ids"]
    prompt = RECORDED["chat"]["prompt_token_ids"] if "messages" in body else body["prompt"]
    tokens = of_text if isinstance(prompt, str) else prompt
    return canary.genuine(KEY, request_id, tokens, body["vllm_xargs"][canary.XARG], time.time())


def test_no_two_requests_have_the_same_token(served):
    for _ in range(3):
        asked(Target(served.url, key=KEY), clock=lambda: 1_000.0)
    tokens = [call[1]["vllm_xargs"][canary.XARG] for call in served.asked]
    assert len(set(tokens)) == len(tokens) >= 3 * len(QUESTIONS)


def test_a_server_that_does_not_say_tokens_has_them_signed_once_it_has_answered(served):
    served.instead["/tokenize"] = (404, {"detail": "Not Found"})
    asker = Asker(Target(served.url, key=KEY), lambda *_: None)
    assert [one.error for one in asker.ask()] == [""]
    unsigned = [canary.find(call[2]).question for call in served.asked if "vllm_xargs" not in call[1]]
    assert unsigned == ["short", "long", "chat"], "of these no tokens are known yet"
    served.calls.clear()
    asker.ask()
    assert all(_pass(call).most_tokens == call[1]["max_tokens"] for call in served.asked)


def test_without_the_key_nothing_runs_beside_since_it_would_be_traffic(served):
    asked(Target(served.url))
    assert len(served.asked) == len(QUESTIONS)
    assert not [call for call in served.calls if call[0] == "/tokenize"]


def test_every_data_parallel_engine_is_asked_everything_each_in_a_round_of_its_own(served):
    served.ranks = 3
    results, rows = asked(Target(served.url, key=KEY))
    assert [(one.rank, one.answered, one.error) for one in results] == [(rank, 5, "") for rank in range(3)]
    for rank in range(3):
        calls = [call for call in served.asked if call[3][RANK_HEADER] == str(rank)]
        questions = [canary.find(call[2]) for call in calls]
        assert [one.question for one in questions if one.question != "beside"] == [q.name for q in QUESTIONS]
        assert len({one.round for one in questions}) == 1, "what runs beside is in the same batch"
        assert len([row for row in rows if row[1] == rank]) == 5
    assert len({canary.find(call[2]).round for call in served.asked}) == 3
    assert all(RANK_HEADER in call[3] for call in served.asked), "of what runs beside none goes elsewhere"


def test_one_engine_is_asked_as_if_there_were_no_ranks_and_told_once_that_there_is_one(served):
    asker = Asker(Target(served.url), lambda *_: None)
    for _ in range(3):
        asker.ask()
    assert not [call for call in served.asked if RANK_HEADER in call[3]]
    assert len([call for call in served.calls if RANK_HEADER in call[3]]) == 1
    assert asker.ranks == 1


def test_an_engine_that_fails_keeps_no_other_from_being_asked_and_is_named(served):
    served.ranks = 2
    refuse = served.refuse
    served.refuse = lambda headers: (500, b"gone") if headers.get(RANK_HEADER) == "0" else refuse(headers)
    results, _ = asked(Target(served.url))
    assert [(one.rank, one.answered) for one in results] == [(0, 0), (1, 5)]
    assert results[0].error.startswith("data-parallel rank 0: ")


def test_a_server_that_comes_back_with_more_engines_has_all_of_them_asked(served):
    asker = Asker(Target(served.url), lambda *_: None)
    asker.ask()
    served.instead["/v1/completions"] = (503, b"loading")
    asker.ask()
    served.instead.clear()
    served.ranks = 2
    assert [one.rank for one in asker.ask()] == [0, 1]


def test_a_server_that_ignores_the_header_has_one_engine(served):
    served.ranks = 2**31
    result, _ = asked(Target(served.url))
    assert (result.answered, result.rank) == (5, None)


@pytest.mark.parametrize(
    ("path", "instead", "said"),
    [
        ("/v1/models", (401, {"error": "Unauthorized"}), "--api-key-file"),
        ("/v1/models", (200, b"<html>hello</html>"), "no JSON, but with '<html>hello</html>'"),
        ("/v1/models", (200, []), "vLLM"),
        ("/v1/models", (200, {"data": []}), "--model"),
        ("/v1/models", (307, b""), "307"),
        ("/v1/completions", (404, {"error": "The model `gone` does not exist."}), "still serve the model"),
        ("/v1/completions", (500, b"\xff\xfe"), "500"),
        ("/v1/completions", (200, {"choices": [{"text": "as OpenAI answers"}]}), "vLLM's own server"),
        ("/v1/completions", (200, [1]), "vLLM's own server"),
        ("/v1/completions", (200, {"choices": []}), "vLLM's own server"),
        ("/v1/chat/completions", (400, {"error": "no chat template"}), "no chat template"),
    ],
)
def test_a_server_that_cannot_answer_ends_the_round_with_what_it_said(served, path, instead, said):
    served.instead[path] = instead
    result, rows = asked(Target(served.url))
    assert said in result.error
    assert result.answered == len(rows) == (2 if "chat" in path else 0)


def test_a_server_that_answers_a_byte_at_a_time_is_given_up_in_time(served):
    served.instead["/v1/completions"] = 0.05
    began = time.monotonic()
    result, _ = asked(Target(served.url, timeout_seconds=0.5))
    assert "within 0.5 s" in result.error
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://[", "ftp://x", "http://nobody.invalid"])
def test_an_address_where_nobody_answers_is_an_error_of_the_round(url):
    result, rows = asked(Target(url, timeout_seconds=2.0))
    assert result.error
    assert rows == []


def test_an_api_key_that_no_header_can_hold_is_an_error_of_the_round(served):
    result, _ = asked(Target(served.url, api_key="schlüssel\n"))
    assert result.error
    assert served.calls == []


def _job(*urls, deliver=lambda _: None, wanted=lambda _: False, interval=0.2):
    return ProbeJob(
        ProbeSettings(endpoints=urls, interval_seconds=interval, timeout_seconds=2.0), wanted, deliver
    )


@pytest.mark.thorough
def test_an_endpoint_that_hangs_delays_no_other(served):
    with serve() as slow:
        slow.instead["/v1/models"] = 0.1
        job = _job(slow.url, served.url, interval=1.0)
        job.start()
        try:
            eventually(lambda: job.endpoints[1].answered >= 1, 20)
            assert job.endpoints[0].answered == 0
        finally:
            job.stop(5.0)
    assert (job.states()[1]["model"], job.states()[1]["ranks"]) == ("smollm2", 1)


@pytest.mark.thorough
def test_failures_are_counted_and_each_is_said_once(served, capsys):
    served.instead["/v1/models"] = (401, b"")
    job = _job(served.url, wanted=lambda _: True)
    job.start()
    try:
        eventually(lambda: job.endpoints[0].failed >= 2, 20)
        served.instead.clear()
        eventually(lambda: job.endpoints[0].answered >= 1, 20)
    finally:
        job.stop(5.0)
    said = capsys.readouterr().out
    assert said.count("401") == 1
    assert said.count("answers again") == 1
    assert job.states()[0]["error"] == ""


def test_a_collector_that_refuses_is_an_error_of_the_round(served):
    def refuse(_):
        raise ReportError("the log is full")

    job = _job(served.url, deliver=refuse)
    job.start()
    try:
        eventually(lambda: job.endpoints[0].failed >= 1, 20)
    finally:
        job.stop(5.0)
    assert job.states()[0]["error"] == "the log is full"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--url", "vllm:8000"], "http(s)://host"),
        (["--url", "http://vllm:8000", "--interval", "soon"], "--interval"),
        (["--url", "http://vllm:8000", "--key-file", "/nowhere"], "/nowhere"),
        (["--url", "http://vllm:8000", "--ca-file", "/nowhere"], "/nowhere"),
    ],
)
def test_the_command_refuses_what_it_cannot_use(options, said):
    app = typer.Typer()
    app.callback()(lambda: None)
    command.register(app)
    done = CliRunner().invoke(app, ["canary", *options])
    assert done.exit_code == 2
    assert said in done.output


def test_the_command_says_once_that_nobody_answers_and_ends_in_failure():
    app = typer.Typer()
    app.callback()(lambda: None)
    command.register(app)
    done = CliRunner().invoke(
        app, ["canary", "--url", "http://127.0.0.1:1", "--rounds", "3", "--interval", "0.01s"]
    )
    assert done.exit_code == 1
    assert done.output.count("did not answer") == 1


def test_the_suites_digest_changes_with_its_questions_alone():
    assert len(DIGEST) == 8
    assert canary.find(str(canary.CanaryId(DIGEST, "short", "0" * 16))).suite == DIGEST

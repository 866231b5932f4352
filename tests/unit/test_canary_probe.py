"""How a served model is asked, and what comes of servers that are down, slow, strict or something else altogether."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from introspan_collector.cli import canary as command
from introspan_collector.probe.canary import Target, ask
from introspan_collector.probe.job import ProbeJob
from introspan_collector.probe.report import ReportError
from introspan_collector.probe.settings import ProbeSettings
from introspan_collector.suite import DIGEST, QUESTIONS
from introspan_wire import canary
from introspan_wire.signals import Kind
from tests.patience import eventually

RECORDED = json.loads((Path(__file__).parent / "golden" / "canary_answers.json").read_text())
KEY = b"0123456789abcdef"


class Served:
    """A server that gives recorded answers of vLLM, or whatever `instead` says: (status, body) or seconds to wait."""

    def __init__(self):
        self.url, self.calls, self.instead = "", [], {}

    def answer(self, path, body):
        if path.endswith("/models"):
            return {"data": [{"id": "adapter", "parent": "smollm2"}, {"id": "smollm2"}]}
        if path.endswith("/chat/completions"):
            return RECORDED["chat"]
        return RECORDED["text" if "prompt_logprobs" in body else "repeat"]


@contextmanager
def serve() -> Iterator[Served]:
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.do_POST()

        def do_POST(self):
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(raw) if raw else {}
            served.calls.append((self.path, body, self.headers.get("X-Request-Id", ""), self.headers))
            instead = served.instead.get(self.path)
            status, content = instead if isinstance(instead, tuple) else (200, served.answer(self.path, body))
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            if isinstance(instead, float):  # a byte now and then, for ever
                self.end_headers()
                try:
                    for _ in range(200):
                        self.wfile.write(b" ")
                        time.sleep(instead)
                except OSError:
                    return
                return
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def served():
    with serve() as running:
        yield running


def asked(target, **how):
    rows = []
    return ask(target, lambda model, table: rows.append((model, table)), **how), rows


def test_a_round_asks_every_question_and_hands_on_every_position(served):
    result, rows = asked(Target(served.url), clock=lambda: 1_000.0)
    assert (result.model, result.answered, result.error) == ("smollm2", 5, "")
    assert [canary.find(call[2]).question for call in served.calls[1:]] == [q.name for q in QUESTIONS]
    by_name = {}
    for model, table in rows:
        assert model == "smollm2"
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
    bodies = [body for _, body, _, _ in served.calls[1:]]
    text = RECORDED["text"]["choices"][0]
    assert bodies[3]["prompt"] == text["prompt_token_ids"]
    assert "prompt_logprobs" not in bodies[3]
    assert bodies[4]["prompt"] == [*text["prompt_token_ids"], *text["token_ids"][:-1]]
    assert len({body["cache_salt"] for body in bodies}) == 1
    assert all(body["temperature"] == 0 and "vllm_xargs" not in body for body in bodies)


def test_with_the_key_every_request_is_signed_and_others_run_beside(served):
    for _ in range(4):
        asked(Target(served.url, key=KEY))
    names = []
    for path, body, request_id, _ in served.calls:
        if path.endswith("/models"):
            continue
        assert canary.is_genuine(KEY, request_id, body["vllm_xargs"][canary.XARG], time.time())
        names.append(canary.find(request_id).question)
    assert names.count("short") == 4
    assert names.count("beside") > 4, "so that the batch is another one each time"


def test_without_the_key_nothing_runs_beside_since_it_would_be_traffic(served):
    asked(Target(served.url))
    assert len(served.calls) == 1 + len(QUESTIONS)


@pytest.mark.parametrize(
    ("path", "instead", "said"),
    [
        ("/v1/models", (401, {"error": "Unauthorized"}), "--api-key-file"),
        ("/v1/models", (200, b"<html>hello</html>"), "is the server up"),
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
    assert job.states()[1]["model"] == "smollm2"


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
        app, ["canary", "--url", "http://127.0.0.1:1", "--rounds", "3", "--interval", "0s"]
    )
    assert done.exit_code == 1
    assert done.output.count("did not answer") == 1


def test_the_suites_digest_changes_with_its_questions_alone():
    assert len(DIGEST) == 8
    assert canary.find(str(canary.CanaryId(DIGEST, "short", "0" * 16))).suite == DIGEST

"""A server that answers canaries as vLLM did when its answers were recorded, over HTTP."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from introspan_collector.probe.conversation import RANK_HEADER

RECORDED = json.loads((Path(__file__).parent / "unit" / "golden" / "canary_answers.json").read_text())


class Served:
    """A server that gives recorded answers of vLLM, or whatever `instead` says: (status, body) or seconds to wait.

    ranks: how many data-parallel engines it has; wrong: those whose answers are of another model.
    """

    def __init__(self):
        self.url, self.calls, self.instead, self.ranks, self.wrong = "", [], {}, 1, set()

    def answer(self, path, body, headers):
        found = self._recorded(path, body)
        if name := headers.get("X-Request-Id"):
            found = {**found, "id": f"cmpl-{name}-0"}
        return _spoilt(found) if int(headers.get(RANK_HEADER) or 0) in self.wrong else found

    def _recorded(self, path, body):
        if path.endswith("/models"):
            return {"data": [{"id": "adapter", "parent": "smollm2"}, {"id": "smollm2"}]}
        if path == "/tokenize":
            of_chat = RECORDED["chat"]["prompt_token_ids"]
            of_text = RECORDED["text"]["choices"][0]["prompt_token_ids"]
            return {"tokens": of_chat if "messages" in body else of_text}
        if path.endswith("/chat/completions"):
            return RECORDED["chat"]
        return RECORDED["text" if "prompt_logprobs" in body else "repeat"]

    def refuse(self, headers):
        """As vLLM 0.32 refuses a rank that there is not."""
        rank = int(headers.get(RANK_HEADER) or 0)
        if rank < self.ranks:
            return None
        said = f"data_parallel_rank {rank} is out of range [0, {self.ranks})."
        return 400, {"error": {"message": said, "type": "BadRequestError", "param": None, "code": 400}}

    @property
    def asked(self):
        """Calls that ask something, without those that ask what there is to ask."""
        ours = [call for call in self.calls if call[2]]
        assert all("/completions" in call[0] for call in ours)
        return ours


def _spoilt(found):
    """Every log-probability a fifth further from 0, and a bit."""
    if isinstance(found, list):
        return [_spoilt(one) for one in found]
    if not isinstance(found, dict):
        return found
    return {
        key: _lower(value)
        if key == "logprob" or key.startswith("token_id:")
        else [_lower(one) for one in value]
        if key == "token_logprobs"
        else _spoilt(value)
        for key, value in found.items()
    }


def _lower(logprob):
    return 1.2 * logprob - 0.1


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
            if instead is None and self.path.endswith("/completions"):
                instead = served.refuse(self.headers)
            status, content = (
                instead if isinstance(instead, tuple) else (200, served.answer(self.path, body, self.headers))
            )
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

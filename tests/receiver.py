"""A real HTTP server on loopback that records what it is sent and answers as it is told."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(slots=True)
class Received:
    """One call. document: what its body says, any JSON."""

    path: str
    headers: dict[str, str]
    body: bytes
    time: float

    @property
    def document(self) -> Any:
        """The body read as JSON."""
        return json.loads(self.body)


@dataclass(slots=True)
class Receiver:
    """The server: answers are used up one by one, (status, headers, seconds to wait), then it is 200."""

    url: str = ""
    calls: list[Received] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str], float]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def documents(self) -> list[Any]:
        """What it was sent, in order, refused or not."""
        return [call.document for call in self.calls]


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    """A server that listens until the end of the context."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, more, wait_seconds = receiver.answers.pop(0) if receiver.answers else (200, {}, 0.0)
            receiver.calls.append(Received(self.path, headers, body, time.monotonic()))
            receiver.released.wait(wait_seconds)
            self.send_response(status)
            for name, value in {"content-length": "0", **more}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing: calls are recorded."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.released.set()
        server.shutdown()
        thread.join()
        server.server_close()

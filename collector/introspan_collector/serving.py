"""An HTTP application and an address in, a thread that serves it out."""

import asyncio
import socket
import threading

import uvicorn
from starlette.applications import Starlette

from introspan_collector.config import ConfigurationError, Settings

_SHUTDOWN_SECONDS = 2


class HttpThread:
    """Serves on an event loop of its own: a scrape delays no acknowledgement, and uvicorn leaves signals alone."""

    def __init__(self, application: Starlette, address: str) -> None:
        self._socket = _bind(address)
        self.port: int = self._socket.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(
                application,
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            )
        )
        self._thread = threading.Thread(target=self._run, name="introspan-http", daemon=True)

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answers what is under way and ends."""
        self._server.should_exit = True
        self._thread.join(_SHUTDOWN_SECONDS + 1)

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))


def load_http_token(settings: Settings) -> str | None:
    """The token that calls which change something must carry, None where anybody may. Raises ConfigurationError."""
    path = settings.http_token_file
    if path is None:
        return None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"http_token_file = {path} cannot be read: {error}") from error
    if not token:
        raise ConfigurationError(f"http_token_file = {path} is empty: write a token into it")
    return token


def _bind(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
        listener.listen()  # whoever comes before the thread has begun waits, and is not turned away
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigurationError(
            f"http = {address} cannot be bound: {error}; choose a free address"
        ) from error
    return listener

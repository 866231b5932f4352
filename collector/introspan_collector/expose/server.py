"""An application and an address in, an HTTP server on the running event loop out."""

import asyncio
import contextlib
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette

_GRACE_SECONDS = 2


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: signals are the collector's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


class HttpServer:
    """Serves an application until it is stopped."""

    def __init__(self, app: Starlette, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._server = _Server(
            uvicorn.Config(
                app,
                host=host.strip("[]"),
                port=int(port),
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        self._address = address
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """The port it listens on. Raises OSError if the address cannot be bound."""
        config = self._server.config
        try:
            listener = config.bind_socket()
        except SystemExit as error:  # uvicorn's way to say that the address is taken
            raise OSError(f"{self._address} cannot be bound") from error
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        port: int = listener.getsockname()[1]
        return port

    async def stop(self) -> None:
        """Answers what is under way, at most two seconds, and closes."""
        if self._task is not None:
            self._server.should_exit = True
            await self._task

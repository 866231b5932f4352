"""Addresses on which somebody listens who is no collector."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hanging() -> Iterator[str]:
    """The address of a server that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def babbling() -> Iterator[str]:
    """The address of a server that answers garbage."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                    peer.sendall(b"\x00\xffnot http/2 at all" * 50)
                    peer.close()
                except OSError:
                    return

        threading.Thread(target=answer, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def absent() -> Iterator[str]:
    """An address on which nobody listens, and nobody without the rights of root can."""
    yield "127.0.0.1:1"


BAD_COLLECTORS = {"absent": absent, "hanging": hanging, "babbling": babbling}

"""The edge of the server: what nobody has foreseen is answered, counted, and logged once."""

import asyncio
from collections import Counter

import grpc
import pytest
import structlog

from introspan_collector.accept.server import AcceptServer

METHOD = "/introspan_wire.v1.ObservationService/ExportObservations"


class Faulty:
    """An intake that fails as nobody has foreseen."""

    def __init__(self):
        self.refused_batches = Counter()

    async def accept(self, raw):
        raise MemoryError(f"{len(raw)} bytes")


def test_what_nobody_has_foreseen_is_answered_counted_and_logged_once():
    intake = Faulty()

    async def scenario():
        server = AcceptServer(intake, "127.0.0.1:0", max_request_bytes=2**20)
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            for _ in range(2):
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await channel.unary_unary(METHOD)(b"batch", timeout=10)
                assert error.value.code() == grpc.StatusCode.INTERNAL
                assert error.value.details() == "the collector failed with MemoryError"
        await server.drain(0.1)

    with structlog.testing.capture_logs() as logs:
        asyncio.run(scenario())
    assert intake.refused_batches == {"internal_error": 2}
    assert [entry["event"] for entry in logs] == ["a batch could not be taken"]

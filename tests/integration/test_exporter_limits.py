"""Whatever the texts and widths a worker meets, a real collector's accept takes its batches."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from introspan.config import load
from introspan.export import Exporter
from introspan.observation import CaptureStatus, Disabled, Observation, Resource
from introspan_collector.accept.decode import Decoded, decode
from introspan_collector.accept.intake import Intake
from introspan_collector.accept.limits import ProducerLimits
from introspan_collector.accept.pressure import Pressure
from introspan_collector.accept.server import AcceptServer
from introspan_wire.codec import Column, Schema
from introspan_wire.limits import COLUMNS, NAME_CHARACTERS, REQUEST_BYTES
from introspan_wire.signals import Kind, Statistic
from tests.integration.exporting import until

SCHEMA = Schema(Kind.PROMPT, (Column("output.entropy", Statistic.LAST),))
LONG = "x" * 600
TEXTS = {
    "long": (LONG + "1", LONG + "2"),
    "long and not ASCII": ("é" * 600 + "1", "é" * 600 + "2"),
    "not UTF-8": ("\udce9 1", "\udce9 2"),
}


class Journal:
    """Takes every batch, and keeps what the collector read of it."""

    def __init__(self) -> None:
        self.batches: list[Decoded] = []

    def seen(self, _producer, _sequence) -> bool:
        return False

    def append(self, received_unix_nano, _producer, _sequence, payload, done, _decoded) -> None:
        self.batches.append(decode(payload, received_unix_nano))
        done(None)

    @property
    def segments(self) -> int:
        return sum(batch.segments for batch in self.batches)


@contextmanager
def accepting() -> Iterator[tuple[Journal, int]]:
    """A journal, and the port of a collector's own server that writes into it."""
    journal, loop = Journal(), asyncio.new_event_loop()

    async def serve() -> AcceptServer:
        limits = ProducerLimits(bytes_per_second=1e9, burst_bytes=1e9, max_producers=9)
        pressure = Pressure(
            max_pending_bytes=2**30, max_lag_bytes=2**40, max_resident_bytes=2**40, lag_bytes=lambda: 0
        )
        intake = Intake(journal, pressure, limits, max_request_bytes=REQUEST_BYTES)
        server = AcceptServer(intake, "127.0.0.1:0", max_request_bytes=REQUEST_BYTES)
        await server.start()
        return server

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(serve(), loop).result(10)
    try:
        yield journal, server.port
    finally:
        asyncio.run_coroutine_threadsafe(server.drain(0), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@contextmanager
def exporting(port, *, resource_of=None, status=CaptureStatus, environ=None):
    settings = load({"INTROSPAN_ENDPOINT": f"127.0.0.1:{port}", **(environ or {})})
    fields = {
        "service_name": settings.service_name,
        "replica": "r0",
        "model_name": "tiny",
        "attributes": dict(settings.resource_attributes),
    } | (resource_of or {})
    resource = Resource(
        model_fingerprint="f" * 64,
        engine_name="vllm",
        engine_version="0.32.0",
        dtype="float32",
        layer_count=2,
        head_count=COLUMNS + 9,
        sdk_version="0.1.0",
        **fields,
    )
    exporter = Exporter(settings, resource, status, print, tick_seconds=0.02)
    try:
        yield exporter
    finally:
        exporter.close()


def observation(request_id="cmpl-0", adapter="", schema=SCHEMA) -> Observation:
    values = np.arange(len(schema.columns), dtype=np.float32)
    ids = (request_id, bytes(16), bytes(8), 0, adapter)
    return Observation(schema, *ids, 0, 1, 1, 1, 2, 0, 1_800_000_000_000_000_000, 1.0, values)


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("field", ["service_name", "replica", "model_name", "request_id", "adapter"])
def test_names_of_any_text_are_taken_and_two_of_them_stay_two(field, kind):
    origins, rows = set(), set()
    with accepting() as (journal, port):
        for text in TEXTS[kind]:
            of_row = {field: text} if field in {"request_id", "adapter"} else {}
            with exporting(port, resource_of={} if of_row else {field: text}) as exporter:
                exporter.offer(observation(**of_row))
            assert exporter.drops == {}
        for batch in journal.batches:
            origins.add((batch.origin.service, batch.origin.replica, batch.origin.model))
            for table in batch.tables:
                rows |= set(zip(table.request_id, table.adapter, strict=True))
    assert (len(origins), len(rows)) == ((1, 2) if of_row else (2, 1))


@pytest.mark.parametrize("text", ["x" * 5_000, "é" * 5_000, "\udce9"])
def test_a_status_of_any_text_is_taken_with_its_batch(text):
    disabled = (Disabled(text, text, text),)
    with accepting() as (journal, port):
        status = CaptureStatus(disabled=disabled, dropped_rows={text + "1": 2, text + "2": 3})
        with exporting(port, status=lambda: status) as exporter:
            exporter.offer(observation())
            until(lambda: journal.segments == 1)
        assert exporter.drops == {}
        told = journal.batches[0].status
        assert told is not None
        assert sum(rows for _, rows in told.dropped_rows) == 5
        assert len(told.disabled) == 1


def test_attributes_beyond_the_limit_are_left_out_and_said_so(caplog):
    given = ",".join(f"key{i}={'v' * 600}" for i in range(70))
    with accepting() as (journal, port):
        with exporting(port, environ={"OTEL_RESOURCE_ATTRIBUTES": given}) as exporter:
            exporter.offer(observation())
        assert (journal.segments, exporter.drops) == (1, {})
        attributes = dict(journal.batches[0].origin.attributes)
    assert set(attributes) == {f"key{i}" for i in range(64)}
    assert {len(value) for value in attributes.values()} == {NAME_CHARACTERS}
    assert "a resource must have at most 64 attributes, got 70; the last ones are not sent" in caplog.text


def test_of_more_columns_than_a_request_may_hold_the_last_of_single_heads_are_left_out_and_said_so(caplog):
    heads = tuple(Column("attention.entropy", Statistic.LAST, 0, head) for head in range(COLUMNS + 9))
    schema = Schema(Kind.PROMPT, (*heads, *SCHEMA.columns))
    with accepting() as (journal, port):
        with exporting(port) as exporter:
            exporter.offer(observation(schema=schema))
            exporter.offer(observation(schema=schema))
        assert (journal.segments, exporter.drops) == (2, {})
        tables = [table for batch in journal.batches for table in batch.tables]
    for table in tables:
        assert table.schema.columns == (*heads[: COLUMNS - 1], *SCHEMA.columns)
        assert table.values[0].tolist() == [*range(COLUMNS - 1), COLUMNS + 9]
    message = f"a segment must have at most {COLUMNS} columns; 10 of single heads are left out"
    assert caplog.text.count(message) == 1

"""Nothing in, what one collector takes out: rows a second and core, acknowledgement times, against OTLP."""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from bench.collector import Running, collector
from bench.fleet import Shape, schema, table
from bench.ingest_otlp import SERVICE as OTLP_METHOD
from bench.ingest_otlp import metrics_request
from introspan_collector.testing import free_address
from introspan_wire.codec import encode_table
from introspan_wire.v1 import observation_pb2 as pb
from introspan_wire.v1 import observation_service_pb2 as service_pb

_METHOD = "/introspan_wire.v1.ObservationService/ExportObservations"
# What the SDK measures by default of a model with 32 layers and 32 heads.
_SHAPE = Shape(
    residual_layers=tuple(range(0, 32, 4)),
    attention_layers=(0, 8, 16, 24),
    projection_layers=(16, 30),
    heads=32,
)
_ROWS = (8, 12, 16, 20, 24, 30)
_PRODUCERS = 8
_SECONDS = 10.0
_PACED_ROWS_PER_SECOND = 10_000
_OTLP_BATCHES = 12
_WARM_UP_SECONDS = 1.5


def run() -> dict[str, Any]:  # Any: numbers, nested
    """Every measurement by name; rows_per_core_second is RPC, log, decoding and aggregates, no other consumer."""
    of = schema(_SHAPE)
    tables = [table(of, rows, np.random.default_rng(rows), traced_share=0.5) for rows in _ROWS]
    saturated = _collector(tables, None)
    paced = _collector(tables, _PACED_ROWS_PER_SECOND)
    otlp = _otlp(tables)
    return {
        "columns": len(of.columns),
        "saturated": saturated,
        "paced": paced,
        "otlp": otlp,
        "ratio_to_otlp": saturated["rows_per_core_second"] / otlp["rows_per_core_second"],
    }


def _collector(
    tables: list[Any], paced_rows_per_second: float | None
) -> dict[str, float]:  # Any: SegmentTable
    with tempfile.TemporaryDirectory() as folder, collector(Path(folder)) as running:
        senders = [_requests(tables, number) for number in range(_PRODUCERS)]
        asyncio.run(_drive(running.grpc, senders, _WARM_UP_SECONDS, paced_rows_per_second))
        _wait_processed(running)
        cpu, wall, consumers = _cpu_seconds(running.pid), time.monotonic(), _consumer_seconds(running)
        rows, seconds = asyncio.run(_drive(running.grpc, senders, _SECONDS, paced_rows_per_second))
        _wait_processed(running)
        cpu, wall = _cpu_seconds(running.pid) - cpu, time.monotonic() - wall
        consumers = {name: now - consumers[name] for name, now in _consumer_seconds(running).items()}
        resident = _resident_bytes(running.pid)
    return {
        "rows_per_second": rows / wall,
        "rows_per_core_second": rows / (cpu - sum(consumers.values()) + consumers["aggregate"]),
        "rows_per_core_second_with_every_consumer": rows / cpu,
        **{f"{name}_microseconds_per_row": 1e6 * spent / rows for name, spent in consumers.items()},
        "acknowledgement_seconds_p50": float(np.quantile(seconds, 0.5)),
        "acknowledgement_seconds_p99": float(np.quantile(seconds, 0.99)),
        "batches": len(seconds),
        "resident_mb": resident / 1e6,
    }


class _Sender:
    """One producer: its batches without their sequence numbers, and the sequence it has come to."""

    def __init__(self, batches: list[tuple[bytes, int]]) -> None:
        self._batches = batches
        self._sequence = 0

    def next(self) -> tuple[bytes, int]:
        """The next request and its number of rows."""
        body, rows = self._batches[self._sequence % len(self._batches)]
        self._sequence += 1
        # A field may follow the others in any order, so the number is appended instead of encoding anew.
        return body + service_pb.ExportObservationsRequest(sequence=self._sequence).SerializeToString(), rows


def _requests(tables: list[Any], number: int) -> _Sender:  # Any: SegmentTable
    resource = pb.Resource(
        service_name="bench",
        model_name=f"model-{number % 2}",
        replica=f"replica-{number}",
        layer_count=32,
        head_count=32,
    )
    producer_id = os.urandom(16)
    batches = []
    for one in tables:
        request = service_pb.ExportObservationsRequest(
            resource=resource, producer_id=producer_id, tables=[encode_table(one)]
        )
        request.tables[0].time_unix_nano[:] = [time.time_ns()] * len(one)
        batches.append((request.SerializeToString(), len(one)))
    return _Sender(batches)


async def _drive(
    address: str, senders: list[_Sender], seconds: float, rows_per_second: float | None
) -> tuple[int, list[float]]:
    """Rows acknowledged and the time each batch took, with one batch in flight a producer."""
    until = time.monotonic() + seconds

    async def send(sender: _Sender) -> tuple[int, list[float]]:
        sent, took = 0, []
        async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            export: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_METHOD)
            began = time.monotonic()
            while (now := time.monotonic()) < until:
                if rows_per_second is not None:
                    due = began + sent * len(senders) / rows_per_second
                    if due > now:
                        await asyncio.sleep(due - now)
                body, rows = sender.next()
                started = time.perf_counter()
                await export(body, timeout=30)
                took.append(time.perf_counter() - started)
                sent += rows
        return sent, took

    results = await asyncio.gather(*(send(sender) for sender in senders))
    return sum(sent for sent, _ in results), [one for _, took in results for one in took]


def _otlp(tables: list[Any]) -> dict[str, float]:  # Any: SegmentTable
    address = free_address()
    process = subprocess.Popen([sys.executable, "-m", "bench.ingest_otlp", address])
    try:
        batches = [(metrics_request(one).SerializeToString(), len(one)) for one in tables]
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
            export: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(OTLP_METHOD)
            export(batches[0][0])
            cpu, wall = _cpu_seconds(process.pid), time.monotonic()
            rows = 0
            for number in range(_OTLP_BATCHES):
                body, size = batches[number % len(batches)]
                export(body)
                rows += size
            cpu, wall = _cpu_seconds(process.pid) - cpu, time.monotonic() - wall
    finally:
        process.terminate()
        process.wait()
    return {"rows_per_second": rows / wall, "rows_per_core_second": rows / cpu}


def _wait_processed(running: Running) -> None:
    while "\nintrospan_collector_lag_bytes 0.0\n" not in running.get("/metrics").text:
        time.sleep(0.2)


def _consumer_seconds(running: Running) -> dict[str, float]:
    line = r'^introspan_collector_consumer_cpu_seconds_total{consumer="(.*)"} (.*)$'
    found = re.findall(line, running.get("/metrics").text, re.MULTILINE)
    return {name: float(seconds) for name, seconds in found}


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))

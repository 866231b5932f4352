"""A made-up fleet in, sent to a real collector over gRPC, healthy and then faulty, its /metrics scraped, out.

A model with replicas, an adapter and canaries, a second one, and one of everything that can go wrong:
an alarm, a deviating canary, values that are not numbers, signals switched off, drops, refusals, notices that nobody
takes, a log with a record that cannot be read, a state that cannot be saved.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import httpx

from introspan_collector.log.record import Record, frame, header_of
from introspan_collector.log.segment import segment_name
from introspan_collector.model import DisabledSignal
from tests.collector import Collector
from tests.deploy.worker import BROKEN, HEALTHY, Fault, Worker
from tests.patience import eventually
from tests.prometheus import scraping
from tests.receiver import receiving
from tests.served import serve

CHAT, SUMMARY = "smollm2", "summary-1b"
"""The first is also the one that the recorded answers of canaries are of."""
REPLICAS, ADAPTER = ("chat-0", "chat-1"), "legal"

_CONFIG = """
[checkpoint]
interval_seconds = 0.5
[aggregate]
slot_seconds = 1.0
shown_slots = 5
kept_slots = 120
[archive]
flush_seconds = 1.0
[detect]
tick_seconds = 0.5
provisional_clusters = 150
frozen_clusters = 100000
canary_rounds = 3
[notify]
alertmanagers = ["http://{nobody}"]
webhooks = ["{receiver}"]
timeout_seconds = 0.5
retry_seconds = 0.2
retry_limit_seconds = 0.5
[canary]
endpoints = ["{served}"]
interval_seconds = 0.5
"""


class Fleet:
    """What runs. ask: a path of Prometheus' API and parameters to what it answers; times are Unix seconds."""

    def __init__(self, collector, ask, served, workers):
        self.collector, self.ask, self._served = collector, ask, served
        self.chat, self.summary = workers[:-1], workers[-1]
        self.began = self.broke = self.ended = time.time()

    def run(self) -> None:
        """Healthy until everything has a reference and a baseline, then faulty until everything has been seen."""
        eventually(lambda: self._traffic() and self._is_warm(), 40, poll_seconds=0.2)
        self.broke = time.time()
        self._break()
        eventually(lambda: self._traffic(BROKEN) and self._is_seen(), 40, poll_seconds=0.3)
        self._announce()
        # Rates take two scrapes of what came last.
        last = self._count()
        eventually(lambda: self._traffic(BROKEN) and self._count() >= last + 3, 10, poll_seconds=0.3)
        self.ended = time.time()

    def samples(self, query: str):
        """Series of an instant query."""
        return self.ask("query", query=query)["result"]

    def _count(self) -> float:
        return float(self.samples('count_over_time(up{job="introspan"}[10m])')[0]["value"][1])

    def _traffic(self, fault: Fault = HEALTHY) -> bool:
        for worker in self.chat:
            of = HEALTHY if worker is self.chat[0] else fault
            worker.send(fault=of)
            worker.send(4, ADAPTER, of)
        self.summary.send(2)
        return True

    def _is_warm(self) -> bool:
        states = self.samples(
            f'introspan_reference_state{{model="{CHAT}",adapter="",state="provisional"}} == 1'
        )
        return bool(states and self.samples("introspan_canary_distance") and self.samples(_DRIFT))

    def _break(self) -> None:
        """Everything that goes wrong beside the requests."""
        self._served.wrong = {0}
        self.chat[1].status = replace(
            self.chat[1].status,
            drops=(("queue_full", 40), ("too_large", 2)),
            dropped_requests=(("table_full", 5),),
            dropped_rows=(("discarded", 6),),
            disabled=(DisabledSignal("attention", "self_check_failed", "heads disagree"),),
            probe_errors=3,
            sampler_rows_skipped=5,
            attention_rows_skipped=6,
            sampling_probability=0.25,
        )
        eventually(self._unsaved, poll_seconds=0.01)
        self._refused()

    def _announce(self) -> None:
        """A deploy of the model whose incidents people know of already."""
        url = f"http://{self.collector.http}/api/v1/maintenance"
        window = {"model": CHAT, "end": time.time() + 3600, "reason": "new weights"}
        httpx.post(url, json=window, timeout=10).raise_for_status()

    def _unsaved(self) -> bool:
        """Where the collector writes its state there is a folder now, unless it was just about to."""
        try:
            (self.collector.data / "cursors" / "aggregate.partial").mkdir()
        except FileExistsError:
            return False
        return True

    def _refused(self) -> None:
        with grpc.insecure_channel(self.collector.grpc) as channel:
            call = channel.unary_unary("/introspan_wire.v1.ObservationService/ExportObservations")
            try:
                call(b"\xff\xff", timeout=10)
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.INVALID_ARGUMENT  # noqa: PT017 - it has to be raised, below
            else:
                raise AssertionError("a malformed batch was accepted")

    def _is_seen(self) -> bool:
        unseen = [query for query in _SEEN if not self.samples(query)]
        assert not unseen
        return True


_DRIFT = "introspan_latent_drift_distance"
_SEEN = (
    f'introspan_alarm_active{{model="{CHAT}",severity="critical"}} == 1',
    "introspan_canary_distance > 8",
    'introspan_collector_failures_total{operation="checkpoint"}',
    "introspan_collector_refused_batches_total",
    "introspan_collector_dropped_batches_total",
    "introspan_notify_dropped_total",
    "introspan_notify_failed_total",
    "introspan_notify_delivered_total > 0",
    f'introspan_incidents_total{{adapter="{ADAPTER}"}}',
)


@contextmanager
def running(folder: Path, free_port, prometheus_program: Path) -> Iterator[Fleet]:
    """A fleet, its collector and the Prometheus that scrapes it, after both phases."""
    with ExitStack() as open_:
        served = open_.enter_context(serve())
        receiver = open_.enter_context(receiving())
        receiver.answers.append((400, {}, 0.0))
        nobody = f"127.0.0.1:{free_port()}"
        config = _CONFIG.format(nobody=nobody, receiver=receiver.url, served=served.url)
        (folder / "data" / "log").mkdir(parents=True)
        _unreadable_record(folder / "data" / "log")
        collector = open_.enter_context(Collector(folder, free_port, config))
        ask = open_.enter_context(scraping(collector.http, folder, prometheus_program, free_port()))
        workers = [
            Worker(collector.grpc, model, replica, seed)
            for seed, (model, replica) in enumerate(
                ((CHAT, REPLICAS[0]), (CHAT, REPLICAS[1]), (SUMMARY, "summary-0"))
            )
        ]
        for worker in workers:
            open_.callback(worker.close)
        fleet = Fleet(collector, ask, served, workers)
        fleet.run()
        yield fleet


def _unreadable_record(log: Path) -> None:
    """What only a collector of another version would have written."""
    record = Record(time.time_ns(), b"p" * 16, 1, b"\xff\xff")
    (log / segment_name(0)).write_bytes(frame(header_of(record), 0) + record.payload)

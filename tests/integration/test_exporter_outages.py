"""Claims on the exporter whose collector hangs, is absent, comes back, or speaks something else; and on its end."""

import socket
import threading
import time

import numpy as np
import pytest

from introspan.export.exporter import TICK_SECONDS
from tests.integration.exporting import LOADED_MACHINE_SECONDS, exporting, observation, offer, until
from tests.integration.scripted_collector import OK, ScriptedCollector


def test_a_peer_that_speaks_no_grpc_is_survived():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(100))

        threading.Thread(target=babble, daemon=True).start()
        with exporting(server.getsockname()[1], environ={"INTROSPAN_TIMEOUT": "0.5"}) as exporter:
            offer(exporter, 2)
            until(lambda: sum(exporter.drops.values()) == 2)
            assert set(exporter.drops) <= {"unavailable", "internal", "unknown"}
        server.shutdown(socket.SHUT_RDWR)


def test_an_absent_collector_costs_what_the_deadline_gives_up_and_is_found_when_it_comes(free_port):
    port = free_port()
    with exporting(port, environ={"INTROSPAN_TIMEOUT": "0.5"}) as exporter:
        offer(exporter, 2)
        until(lambda: exporter.drops == {"unavailable": 2})
        with ScriptedCollector(port=port) as collector:
            offer(exporter, 1, first=2)

            def comes() -> bool:
                time.sleep(0.1)
                offer(exporter, 1, first=3)
                return bool(collector.received)

            until(comes, within_seconds=15)


def test_a_restart_of_the_collector_loses_nothing():
    with ScriptedCollector() as first, exporting(first.port, environ={"INTROSPAN_TIMEOUT": "30"}) as exporter:
        offer(exporter, 3)
        until(lambda: len(first.segments()) == 3)
        port = first.port
        first.__exit__()
        offer(exporter, 3, first=3)
        time.sleep(1.5)
        with ScriptedCollector(port=port) as second:
            until(lambda: len(second.segments()) == 3, within_seconds=15)
            assert exporter.drops == {}
            exporter.close()


def test_offering_stays_fast_while_the_collector_hangs_and_a_full_queue_drops_the_oldest():
    release = threading.Event()
    hang = [lambda *_: (release.wait(30) and OK) or OK]
    environ = {"INTROSPAN_QUEUE_BYTES": "1MiB", "INTROSPAN_TIMEOUT": "20"}
    with ScriptedCollector(*hang) as collector, exporting(collector.port, environ=environ) as exporter:
        offer(exporter, 1)
        until(lambda: len(collector.received) == 1)
        observations = [observation(i, 0) for i in range(1, 20_001)]
        seconds = np.empty(len(observations))
        for i, one in enumerate(observations):
            begin = time.perf_counter()
            exporter.offer(one)
            seconds[i] = time.perf_counter() - begin
        p50, p999 = np.quantile(seconds, [0.5, 0.999])
        assert p50 < 20e-6
        assert p999 < 500e-6
        dropped = exporter.drops["queue_full"]
        release.set()
        until(lambda: len(collector.segments()) == 20_001 - dropped, within_seconds=10)
        kept = [int(request.removeprefix("cmpl-")) for request, _ in collector.segments()[1:]]
        assert kept == list(range(20_001 - len(kept), 20_001))
        assert len(kept) * (50 * 4 + 1024) <= 2**20
        assert exporter.drops == {"queue_full": 20_000 - len(kept)}


def test_shutdown_sends_what_waits():
    with ScriptedCollector() as collector, exporting(collector.port, tick_seconds=TICK_SECONDS) as exporter:
        offer(exporter, 500)
        begin = time.monotonic()
        exporter.close()
        assert time.monotonic() - begin < 2.0
        assert len(collector.segments()) == 500
        exporter.offer(observation(0, 0))
        assert exporter.drops == {"shutdown": 1}


@pytest.mark.parametrize("timeout_seconds", [0.5, 2.0])
def test_shutdown_gives_up_on_a_hung_collector_in_time_and_counts_what_it_left(timeout_seconds):
    release = threading.Event()
    with (
        ScriptedCollector(*[lambda *_: (release.wait(30) and OK) or OK] * 9) as collector,
        exporting(collector.port) as exporter,
    ):
        offer(exporter, 1_000)
        until(lambda: len(collector.received) == 1)
        begin = time.monotonic()
        exporter.close(timeout_seconds)
        assert time.monotonic() - begin < timeout_seconds + LOADED_MACHINE_SECONDS
        until(lambda: exporter.drops == {"shutdown": 1_000}, within_seconds=1)
        assert "introspan-export" not in {thread.name for thread in threading.enumerate()}
        release.set()


def test_shutdown_without_a_collector_ends_in_time_and_says_what_it_left(free_port, caplog):
    with exporting(free_port()) as exporter:
        offer(exporter, 10)
        time.sleep(1.2)
        begin = time.monotonic()
        exporter.close()
        assert time.monotonic() - begin < 2.0 + LOADED_MACHINE_SECONDS
        assert exporter.drops == {"shutdown": 10}
    assert "10 segments were not sent in time" in caplog.text

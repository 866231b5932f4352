"""Claims on the exporter across processes: forks, exits, and what importing it starts."""

import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import pytest

from tests.integration.scripted_collector import ScriptedCollector

PREAMBLE = """
import multiprocessing, os, sys, time
import numpy as np
from introspan.config import load
from introspan.export import Exporter
from introspan.observation import CaptureStatus, Observation, Resource
from introspan_wire.codec import Column, Schema
from introspan_wire.signals import Kind, Statistic

SCHEMA = Schema(Kind.PROMPT, (Column("output.entropy", Statistic.LAST),))
RESOURCE = Resource("chat", "r0", "tiny", "f" * 64, "vllm", "0.32.0", "float32", 50, 1, "0.1.0")
exporter = Exporter(load({"INTROSPAN_ENDPOINT": sys.argv[1]}), RESOURCE, CaptureStatus, print)

def offer(name):
    ids = (bytes(16), bytes(8), 0, "", 0, 1, 1, 1, 2, 0, 1, 1.0)
    exporter.offer(Observation(SCHEMA, name, *ids, np.ones(1, np.float32)))
"""


@pytest.fixture
def collector() -> Iterator[tuple[ScriptedCollector, str]]:
    with ScriptedCollector() as scripted:
        yield scripted, f"127.0.0.1:{scripted.port}"


def arrived(collector: ScriptedCollector) -> dict[str, tuple[bytes, int]]:
    """Producer and sequence by request id; a request that arrived twice is an error."""
    rows = [
        (name, (request.producer_id, request.sequence))
        for request in collector.requests
        for table in request.tables
        for name in table.request_id
    ]
    assert len(rows) == len(dict(rows)), rows
    return dict(rows)


def run(script: str, address: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(script), address],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_child_forked_before_the_first_offer_exports_as_a_producer_of_its_own(collector):
    scripted, address = collector
    run(
        """
        child = os.fork()
        offer("child" if child == 0 else "parent")
        exporter.close()
        if child == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """,
        address,
    )
    found = arrived(scripted)
    assert set(found) == {"parent", "child"}
    assert found["parent"][0] != found["child"][0]
    assert found["parent"][1] == found["child"][1] == 1


def test_a_child_forked_while_observations_wait_leaves_them_to_the_parent(collector):
    scripted, address = collector
    output = run(
        """
        import threading
        offer("waiting")
        child = os.fork()
        if child == 0:
            print([t.name for t in threading.enumerate()], exporter.drops, flush=True)
            exporter.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        exporter.close()
        """,
        address,
    )
    assert "introspan-export" not in output
    assert "{}" in output
    assert set(arrived(scripted)) == {"waiting"}


def test_a_child_forked_after_an_export_still_exports_and_so_does_its_parent(collector):
    scripted, address = collector
    run(
        """
        offer("before")
        time.sleep(1.5)
        child = os.fork()
        offer("child" if child == 0 else "after")
        time.sleep(1.5)
        exporter.close()
        if child == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """,
        address,
    )
    found = arrived(scripted)
    assert set(found) == {"before", "child", "after"}
    assert found["before"][0] == found["after"][0] != found["child"][0]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_exit_without_close_flushes_in_the_main_process_and_in_its_children(collector, method, tmp_path):
    scripted, address = collector
    script = tmp_path / "worker.py"
    script.write_text(
        PREAMBLE
        + textwrap.dedent(
            f"""
            def work():
                offer("child")

            if __name__ == "__main__":
                process = multiprocessing.get_context("{method}").Process(target=work)
                process.start()
                process.join()
                assert process.exitcode == 0
                offer("main")
            """
        )
    )
    subprocess.run([sys.executable, str(script), address], check=True, timeout=60)
    assert set(arrived(scripted)) == {"main", "child"}


def test_an_exit_while_the_collector_is_absent_takes_no_longer_than_the_flush():
    ended_at = float(run("offer('lost')\nprint(time.time())", "127.0.0.1:9"))
    assert time.time() - ended_at < 3.0

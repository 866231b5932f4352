"""What make demo-reference wrote, handed to a collector by a later demonstration: it is compared with, or refused."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from bench.producer import Producer
from demo import collector_settings
from demo.faults import NoFault
from demo.phases import Director
from demo.server import ModelServer
from demo.stage import Stage, save_reference
from demo.traffic import Tally
from tests.batches import ORIGIN, Traffic
from tests.collector import Collector
from tests.patience import eventually

CLUSTERS = 60
CONFIG = f"[detect]\ntick_seconds = 0.5\nprovisional_clusters = {CLUSTERS}\n"


def asked(collector, ask):
    """What ask says of a collector."""

    async def answer():
        async with httpx.AsyncClient(base_url=f"http://{collector.http}") as client:
            return await ask(client)

    return asyncio.run(answer())


def fed(collector, requests, origin):
    """The collector's only reference, once it knows of so many requests of this origin."""
    batch = Traffic().batch(requests, time.time())
    with Producer(collector.grpc, origin) as producer:
        producer.send(*batch.tables, status=batch.status)
    return eventually(lambda: references(collector))[0]


def references(collector):
    return collector.get("/api/v1/references").json()["references"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory, free_port):
    """The file that a collector of healthy traffic gave."""
    folder = tmp_path_factory.mktemp("built")
    file = folder / "references" / "m.zip"
    with Collector(folder, free_port, CONFIG) as collector:
        fed(collector, 2 * CLUSTERS, ORIGIN)
        eventually(lambda: references(collector)[0]["state"] != "none")
        said = asked(collector, lambda client: save_reference(client, "m", file))
    assert said.startswith(f"wrote {file}, ")
    return file


@pytest.mark.parametrize(
    ("served", "differences"),
    [
        ({}, ()),
        ({"dtype": "bfloat16"}, ("dtype is 'float32', not 'bfloat16'",)),
        ({"engine_version": "0.33.0"}, ("engine_version is '0.32.0', not '0.33.0'",)),
        (
            {"engine": "sglang", "dtype": "bfloat16"},
            ("engine is 'vllm', not 'sglang'", "dtype is 'float32', not 'bfloat16'"),
        ),
    ],
    ids=["same", "dtype", "engine version", "engine and dtype"],
)
def test_reference_of_another_engine_or_dtype_is_refused_and_the_screen_says_why_and_what_to_do(
    tmp_path, free_port, saved, served, differences
):
    stage = Stage(
        "m",
        ModelServer(Path(), 1, {}, Tally().quiet),
        NoFault(),
        Director(has_fault=False, is_reversible=False),
        saved,
    )
    with Collector(tmp_path, free_port, CONFIG) as collector:
        fed(collector, 4, replace(ORIGIN, **served))
        eventually(lambda: asked(collector, stage.step) or stage.note)
        state = references(collector)[0]["state"]
    if not differences:
        assert stage.note == f"compared with the reference of make demo-reference, {saved}"
        assert state == "frozen"
        return
    assert stage.note.startswith(f"{saved} was refused, a small provisional reference is built instead: ")
    assert all(said in stage.note for said in differences)
    assert stage.note.endswith("import one of this model, or build one")
    assert state == "none"


def test_reference_is_built_of_everything_that_came_also_after_a_demonstration_would_have_enough(
    tmp_path, free_port
):
    file = collector_settings.write(tmp_path, tmp_path / "canary.key", free_port(), is_building=True)
    # No canary is asked: where one does not answer, nothing is frozen anyway.
    config = file.read_text().partition("[canary]")[0]
    traffic, enough = Traffic(), collector_settings.REFERENCE_CLUSTERS
    with Collector(tmp_path, free_port, config) as collector, Producer(collector.grpc, ORIGIN) as producer:

        def send(requests):
            batch = traffic.batch(requests, time.time())
            producer.send(*batch.tables, status=batch.status)

        send(2 * enough)
        eventually(lambda: any(one["reference"] for one in references(collector)))
        send(2 * enough)
        collector.wait_processed()
        saved = tmp_path / "m.zip"
        asked(collector, lambda client: save_reference(client, "m", saved))
        (found,) = references(collector)
    assert found["state"] == "frozen"
    assert found["reference"]["clusters"] > 2 * enough

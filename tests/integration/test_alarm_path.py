"""From the call that carries a fault to the alert in Alertmanager, through the collector as operators run it."""

import time
from dataclasses import replace

import numpy as np
import pytest

from bench.fleet import Shape, origin, schema, table
from bench.producer import Producer
from tests.alertmanager import alerting
from tests.collector import Collector
from tests.patience import eventually
from tests.receiver import receiving

SHAPE = Shape(residual_layers=(0, 8), attention_layers=(0,), projection_layers=(8,), heads=2)


@pytest.fixture
def receiver():
    with receiving() as found:
        yield found


@pytest.fixture
def peer(tmp_path, alertmanager_program, free_port, receiver):
    with alerting(tmp_path / "alertmanager", alertmanager_program, free_port(), receiver.url) as found:
        yield found


def rows(number, mismatches=0):
    """Decoded rows of a healthy model, but for greedy tokens that were not the likeliest."""
    of = table(
        schema(SHAPE), number, np.random.default_rng(number), time_unix_nano=time.time_ns(), traced_share=1.0
    )
    column = next(i for i, one in enumerate(of.schema.columns) if one.signal == "sampler.greedy_mismatch")
    values = of.values.copy()
    values[:mismatches, column] = 1.0
    return replace(of, values=values)


def test_a_greedy_sampler_that_is_not_pages_within_a_second_and_once_though_the_collector_is_killed(
    tmp_path, free_port, peer, receiver
):
    config = f'[notify]\nalertmanagers = ["{peer.url}"]\nrunbook_url = "https://docs.example/runbook.md"\n'
    folder = tmp_path / "collector"
    folder.mkdir()
    with Collector(folder, free_port, config) as collector:
        with Producer(collector.grpc, origin(model="m")) as producer:
            producer.send(rows(20))
            time.sleep(1.0)
            assert peer.alerts() == []
            # A request counts by one of its segments, chosen by hash: of so many, some are chosen.
            faulty = rows(64, mismatches=64)
            producer.send(faulty)
            began = time.monotonic()
            alert = eventually(lambda: peer.alert(model="m"), poll_seconds=0.01)
            print(f"answer to alert: {time.monotonic() - began:.3f} s")
            assert time.monotonic() - began <= 1.0
        assert alert["labels"] == {
            "alertname": "IntrospanSamplerDeviates",
            "model": "m",
            "severity": "critical",
        }
        said = alert["annotations"]
        assert said["triage"] == "sampler"
        shown = [faulty.request_id.index(name) for name in said["requests"].split(", ")]
        traces = [faulty.trace_id[row].tobytes().hex() for row in shown]
        assert said["trace_ids"].split(", ") == traces
        assert said["replicas"] == "replica-0"
        assert said["runbook_url"] == "https://docs.example/runbook.md#introspansamplerdeviates"
        eventually(receiver.documents)
        collector.kill()
        collector.start()
        eventually(lambda: collector.get("/readyz").status_code == 200)
        time.sleep(3.0)  # three of Alertmanager's group intervals
        assert [one["status"] for one in receiver.documents()] == ["firing"]
        assert peer.alert(model="m")["fingerprint"] == alert["fingerprint"]

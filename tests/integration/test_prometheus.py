"""A real Prometheus scrapes a real collector that is fed over real gRPC."""

import re
import subprocess
import time

import numpy as np
import pytest

from bench.fleet import Shape, origin, schema, table
from bench.producer import Producer
from introspan_collector.model import DisabledSignal, ProducerStatus
from introspan_wire.signals import CATALOGUE, Kind
from tests.collector import Collector
from tests.patience import eventually
from tests.prometheus import scraping

SHAPE = Shape(residual_layers=(0, 1, 8), attention_layers=(0, 8), projection_layers=(8,), heads=2)
STATUS = ProducerStatus(
    measured_steps=7,
    measured_rows=21,
    capture_seconds=0.5,
    drops=(("queue_full", 3),),
    disabled=(DisabledSignal("attention", "self_check_failed", "heads disagree"),),
    probe_errors=1,
    sampler_rows_skipped=2,
    attention_rows_skipped=4,
    sampling_probability=0.25,
)


def traced(rows, rng, kind=Kind.DECODED):
    return table(schema(SHAPE, kind), rows, rng, time_unix_nano=time.time_ns(), traced_share=1.0)


@pytest.fixture(scope="module")
def collector(tmp_path_factory, free_port):
    with Collector(tmp_path_factory.mktemp("collector"), free_port) as found:
        yield found


@pytest.fixture(scope="module")
def sent(collector):
    """One prompt table and two decoded ones, acknowledged."""
    rng = np.random.default_rng(7)
    tables = (traced(3, rng, Kind.PROMPT), traced(5, rng), traced(4, rng))
    with Producer(collector.grpc, origin()) as producer:
        for one in tables:
            producer.send(one, status=STATUS)
    eventually(lambda: collector.get("/api/v1/latest").json()["series"])
    return tables


@pytest.fixture(scope="module")
def prometheus(collector, sent, tmp_path_factory, free_port, prometheus_program):
    assert sent
    folder = tmp_path_factory.mktemp("prometheus")
    with scraping(collector.http, folder, prometheus_program, free_port()) as ask:
        eventually(lambda: ask("query", query='up{job="introspan"} == 1')["result"])
        yield ask


@pytest.mark.usefixtures("sent")
def test_promtool_finds_nothing_wrong_with_the_metrics(collector, promtool_program):
    text = collector.get("/metrics").content
    done = subprocess.run(
        [promtool_program, "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_prometheus_has_the_window_mean_of_what_was_sent(prometheus, sent):
    values = np.concatenate([of.values[:, names(of).index(("residual.log_rms", 8))] for of in sent])
    result = eventually(
        lambda: prometheus("query", query='introspan_residual_log_rms_window_mean{layer="8"}')["result"]
    )
    assert result[0]["metric"]["model"] == "model"
    assert result[0]["metric"]["replica"] == "replica-0"
    assert float(result[0]["value"][1]) == pytest.approx(values.mean(), rel=1e-5)


def test_prometheus_has_every_signal_but_projections(prometheus):
    found = set(prometheus("label/__name__/values"))
    for signal_ in CATALOGUE.values():
        stem = f"introspan_{signal_.name.replace('.', '_')}"
        # Nobody sent a request again here.
        is_there = signal_.name != "residual.projection" and Kind.DECODED in signal_.kinds
        assert any(re.match(rf"{stem}.*_bucket$", name) for name in found) == is_there
        assert any(name.startswith(f"{stem}_window_mean") for name in found) == is_there


def test_prometheus_counts_every_value_once(prometheus, sent):
    rows = sum(len(of) for of in sent)
    query = 'introspan_attention_entropy_nats_count{replica="replica-0"}'
    result = eventually(lambda: prometheus("query", query=query)["result"])
    assert float(result[0]["value"][1]) == rows * len(SHAPE.attention_layers) * SHAPE.heads


def test_a_trace_id_is_found_as_an_exemplar_in_prometheus(prometheus, sent):
    ids = {one.tobytes().hex() for of in sent for one in of.trace_id}

    def exemplars():
        now = time.time()
        found = prometheus(
            "query_exemplars", query="introspan_output_entropy_nats_bucket", start=now - 300, end=now + 60
        )
        return {item["labels"]["trace_id"] for series in found for item in series["exemplars"]}

    assert eventually(exemplars) <= ids


def test_what_the_sdk_says_of_itself_reaches_prometheus(prometheus):
    expected = {
        'introspan_capture_disabled{signal="attention",reason="self_check_failed"}': 1,
        'introspan_sdk_dropped_segments_total{reason="queue_full"}': 3,
        "introspan_capture_seconds_total": 0.5,
        "introspan_sdk_measured_rows_total": 21,
        "introspan_sdk_measured_steps_total": 7,
        "introspan_sdk_probe_errors_total": 1,
        "introspan_sdk_sampling_probability_ratio": 0.25,
        "introspan_collector_accepted_batches_total": 3,
        "introspan_collector_accepted_segments_total": 12,
    }
    for query, value in expected.items():
        result = eventually(lambda query=query: prometheus("query", query=query)["result"])
        assert float(result[0]["value"][1]) == value, query


def test_the_api_answers_over_time_and_per_replica(collector, sent):
    series = collector.get("/api/v1/query", signal="output.entropy", model="model").json()["series"]
    assert sum(point[2] for point in series[0]["points"]) == sum(len(of) for of in sent)
    status = collector.get("/api/v1/status", replica="replica-0").json()["replicas"]
    assert status[0]["disabled"] == [
        {"signal": "attention", "reason": "self_check_failed", "detail": "heads disagree"}
    ]
    assert status[0]["segments"] == {"decoded": 9, "prompt": 3}


def test_observations_are_seen_while_the_collector_runs_and_before_they_are_in_parquet(collector, sent):
    assert not list(collector.data.glob("archive/observations/**/*.parquet"))
    found = collector.observations("--signal", "residual.log_rms")
    assert sorted(one["request_id"] for one in found) == sorted(name for of in sent for name in of.request_id)
    check_first_row(found, sent[1])


def check_first_row(found, of):
    one = next(one for one in found if one["request_id"] == of.request_id[0])
    assert one["trace_id"] == of.trace_id[0].tobytes().hex()
    assert one["span_id"] == of.span_id[0].tobytes().hex()
    assert (one["kind"], one["token_start"], one["token_count"]) == (of.schema.kind.value, 100, 64)
    assert (one["cached_tokens"], one["prompt_tokens"]) == (16, 100)
    expected = [
        {"signal": "residual.log_rms", "layer": layer, "head": None, "component": None, "statistic": "mean"}
        for layer in SHAPE.residual_layers
    ]
    values = [one.pop("value") for one in one["values"]]
    assert one["values"] == expected
    columns = [names(of).index(("residual.log_rms", layer)) for layer in SHAPE.residual_layers]
    assert values == pytest.approx(of.values[0, columns].tolist(), rel=1e-6)


def names(of):
    return [(column.signal, column.layer) for column in of.schema.columns]


def test_after_a_stop_everything_is_in_parquet_once_and_counts_go_on(tmp_path, free_port):
    rng = np.random.default_rng(8)
    first, second = traced(3, rng), traced(4, rng)
    collector = Collector(tmp_path, free_port)
    for of in (first, second):
        with collector:
            with Producer(collector.grpc, origin()) as producer:
                producer.send(of)
            eventually(lambda: collector.get("/api/v1/latest").json()["series"])
            counted = collector.metric("introspan_output_entropy_nats_count", replica="replica-0")
    assert counted == 7
    found = collector.observations()
    assert sorted(one["request_id"] for one in found) == sorted((*first.request_id, *second.request_id))
    assert len(list(collector.data.glob("archive/observations/**/*.parquet"))) == 2

"""What /metrics says, in both formats, held against files and against other parsers."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics_exposition
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import CollectorRegistry

from bench.fleet import Shape, batch, origin, schema, table
from introspan_collector.aggregate.aggregator import AggregateSettings, Aggregator
from introspan_collector.expose.metrics import render
from introspan_collector.expose.names import event_name, gauge_name, histogram_name
from introspan_collector.expose.text import encode, finished
from introspan_collector.model import DisabledSignal, ProducerStatus, Stats
from introspan_collector.notify.notifier import NotifyStats
from introspan_collector.view import ArchiveStats
from introspan_wire.signals import CATALOGUE, Kind
from tests.exposed import AsSeen, watched_sources

GOLDEN = Path(__file__).parent / "golden"
NOW = 1_800_000_000 * 10**9
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
OFF = DisabledSignal("attention", "self_check", "x")
STATUS = ProducerStatus(
    7,
    21,
    0.5,
    (("queue_full", 3),),
    (OFF,),
    1,
    2,
    4,
    0.25,
    dropped_requests=(("table_full", 5),),
    dropped_rows=(("discarded", 6),),
)


ENDPOINTS = [
    {"url": "http://user:secret@vllm:8000", "model": "m", "answered": 5, "failed": 2, "error": "timeout"}
]
HOOK = "https://hooks.example/secret"
PEER = "http://alertmanager:9093"
TOLD = NotifyStats({HOOK: 1, PEER: 0}, {HOOK: 4}, {(HOOK, "timeout"): 2}, {"too_old": 3}, {}, (PEER,))


class Archive:
    def tracks(self, *_):
        return []

    def stats(self):
        return ArchiveStats(1, 2, 3, 0.5, 0, 0, 7, 8, 9, 0)


MAPPINGS = {
    "refused_batches": {"malformed": 4},
    "dropped": {"undecodable": 5},
    "failures": {"checkpoint": 6},
    "consumer_cpu_seconds": {"archive": 0.5},
}


def stats(value=1):
    return Stats(**dict.fromkeys(Stats.__dataclass_fields__, value) | MAPPINGS)


def sources(aggregator):
    return watched_sources(
        aggregator, Archive(), stats, lambda: True, detection=AsSeen(), endpoints=ENDPOINTS, deliveries=TOLD
    )


def aggregator_with_one_batch(limit=50_000):
    aggregator = Aggregator(AggregateSettings(series_limit=limit), clock_unix_nano=lambda: NOW)
    shape = Shape(residual_layers=(0, 8), attention_layers=(8,), projection_layers=(8,), heads=2)
    rng, common = np.random.default_rng(5), {"time_unix_nano": NOW, "adapter": "poet"}
    of = table(schema(shape), 3, rng, traced_share=0.5, **common)
    again = table(schema(shape, Kind.REPREFILL), 2, rng, **common)
    for one in (of, again):
        one.values[:] = np.round(one.values, 3)
        # Eighths are exact, so that the file is the same on every machine.
        one.values[:] = np.round(one.values * 8) / 8
    who = origin('a "quoted" \\ model', "10.0.0.1:8000")
    aggregator.consume(batch((of, again), who=who, received_unix_nano=NOW - 10**9, status=STATUS))
    return aggregator


@pytest.mark.parametrize(
    ("accept", "name"), [("text/plain", "metrics.txt"), (OPENMETRICS, "metrics.openmetrics.txt")]
)
def test_metrics_are_those_of_the_golden_file(accept, name):
    body, content_type = render(sources(aggregator_with_one_batch()), accept)
    assert content_type.startswith(accept.split(";")[0])
    path = GOLDEN / name
    if "UPDATE_GOLDEN" in os.environ:
        path.write_bytes(body)
    assert body.decode() == path.read_text()


@pytest.mark.parametrize(("accept", "parse"), [("text/plain", parse_text), (OPENMETRICS, parse_openmetrics)])
def test_other_parsers_read_the_metrics(accept, parse):
    body, _ = render(sources(aggregator_with_one_batch()), accept)
    families = {family.name: family for family in parse(body.decode())}
    sample = families["introspan_residual_log_rms_window_mean"].samples[1]
    assert sample.labels == {
        "model": 'a "quoted" \\ model', "replica": "10.0.0.1:8000", "adapter": "poet", "layer": "8"
    }  # fmt: skip


def metrics():
    gauge = GaugeMetricFamily("a_gauge", 'help with \\ and "quotes"\nand lines', labels=["who"])
    gauge.add_metric(['nobody "here"\\\n'], float("inf"))
    gauge.add_metric(["somebody"], -1.25e-9)
    counter = CounterMetricFamily("a_counter", "counted", labels=["b", "a"])
    counter.add_metric(["2", "1"], 3)
    histogram = HistogramMetricFamily("a_histogram", "spread")
    histogram.add_metric([], [("0.5", 1), ("+Inf", 3)], 7.5)
    return [gauge, counter, histogram]


class Once:
    def collect(self):
        return metrics()


@pytest.mark.parametrize("openmetrics", [False, True])
def test_families_are_written_as_prometheus_client_writes_them(openmetrics):
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Once())
    theirs = (openmetrics_exposition if openmetrics else exposition).generate_latest(registry)
    assert encode(map(finished, metrics()), openmetrics=openmetrics) == theirs


def test_exemplars_are_read_by_the_openmetrics_parser():
    aggregator = aggregator_with_one_batch()
    (histogram,) = [h for h in aggregator.view().histograms if h.signal == "output.margin"]
    families = parse_openmetrics(render(sources(aggregator), OPENMETRICS)[0].decode())
    samples = next(family.samples for family in families if family.name == "introspan_output_margin")
    buckets = [sample for sample in samples if sample.name.endswith("_bucket")]
    assert histogram.exemplars
    for i, sample in enumerate(buckets):
        expected = histogram.exemplars.get(i)
        assert (sample.exemplar is None) == (expected is None)
        if expected:
            assert sample.exemplar.labels == {"trace_id": expected.trace_id, "span_id": expected.span_id}
            assert sample.exemplar.value == expected.value
            assert float(sample.exemplar.timestamp) == expected.time_unix_seconds
            assert i == 0 or expected.value > histogram.bounds[i - 1]
            assert i == len(histogram.bounds) or expected.value <= histogram.bounds[i]


def test_exemplar_labels_fit_into_128_characters():
    body = render(sources(aggregator_with_one_batch()), OPENMETRICS)[0].decode()
    found = [sample.exemplar for f in parse_openmetrics(body) for sample in f.samples if sample.exemplar]
    assert found
    for exemplar in found:
        assert sum(len(name) + len(value) for name, value in exemplar.labels.items()) <= 128


def test_layer_and_heads_label_nothing_but_what_the_design_says():
    body, _ = render(sources(aggregator_with_one_batch()), "text/plain")
    for family in parse_text(body.decode()):
        for sample in family.samples:
            assert "head" not in sample.labels
            if family.type == "histogram":
                assert set(sample.labels) - {"le"} == {"model", "replica"}


def test_beyond_the_limit_the_overflow_series_count_on():
    body, _ = render(sources(aggregator_with_one_batch(limit=1)), "text/plain")
    samples = [
        s
        for f in parse_text(body.decode())
        if f.name == "introspan_output_entropy_window_mean_nats"
        for s in f.samples
    ]
    assert [set(sample.labels.values()) for sample in samples] == [{"__overflow__"}]
    text = body.decode()
    assert 'introspan_residual_log_rms_window_mean{adapter="__overflow__",layer="__overflow__"' in text
    assert 'introspan_output_entropy_nats_count{model="__overflow__",replica="__overflow__"} 3.0' in text


def test_no_series_is_written_twice_whatever_a_producer_says():
    aggregator = aggregator_with_one_batch()
    status = replace(
        STATUS, drops=(("queue_full", 3), ("queue_full", 4)), disabled=(OFF, replace(OFF, detail="y"))
    )
    aggregator.consume(
        batch((), who=replace(origin(), fingerprint="other"), received_unix_nano=NOW, status=status)
    )
    aggregator.consume(batch((), who=origin(), received_unix_nano=NOW, status=status))
    text = render(sources(aggregator), "text/plain")[0].decode()
    series = [line.rsplit(" ", 1)[0] for line in text.splitlines() if line[0] != "#"]
    assert len(series) == len(set(series))
    assert 'reason="queue_full",replica="replica-0",worker="tp0-pp0-dp0"} 7.0' in text


def lines_about_workers(aggregator):
    text = render(sources(aggregator), "text/plain")[0].decode()
    return [line for line in text.splitlines() if 'worker="' in line]


def test_free_text_reasons_of_a_worker_are_bounded_and_nothing_is_lost():
    aggregator = Aggregator(clock_unix_nano=lambda: NOW)
    disabled = tuple(DisabledSignal(f"signal_{i}", f"reason_{i}", "x") for i in range(256))
    drops = tuple((f"reason_{i}", 2) for i in range(256))
    status = replace(STATUS, drops=drops, disabled=disabled)
    aggregator.consume(batch((), who=origin(), received_unix_nano=NOW, status=status))
    lines = lines_about_workers(aggregator)
    assert len(lines) == aggregator.view().series_used < 50
    dropped = [line for line in lines if line.startswith("introspan_sdk_dropped_segments_total{")]
    assert sum(float(line.split()[-1]) for line in dropped) == 512
    assert sum('reason="other"' in line for line in dropped) == 1


def test_series_of_workers_count_towards_the_limit_and_come_back_when_there_is_room():
    clock = [NOW]
    settings = AggregateSettings(series_limit=29, idle_seconds=300)
    aggregator = Aggregator(settings, clock_unix_nano=lambda: clock[0])
    for number in range(5):
        who = origin("model", f"replica-{number}")
        aggregator.consume(batch((), who=who, number=number, received_unix_nano=clock[0], status=STATUS))
    lines = lines_about_workers(aggregator)
    assert {line.split('replica="')[1].split('"')[0] for line in lines} == {"replica-0", "replica-1"}
    assert len(lines) == aggregator.view().series_used <= 29
    text = render(sources(aggregator), "text/plain")[0].decode()
    assert "\nintrospan_collector_hidden_workers 3.0\n" in text
    clock[0] += 600 * 10**9
    who = origin("model", "replica-4")
    for number in (5, 6):
        aggregator.consume(batch((), who=who, number=number, received_unix_nano=clock[0], status=STATUS))
    assert {line.split('replica="')[1].split('"')[0] for line in lines_about_workers(aggregator)} == {
        "replica-4"
    }


def test_every_signal_has_names_of_its_own():
    names = [make(signal) for signal in CATALOGUE for make in (histogram_name, gauge_name, event_name)]
    assert len(names) == len(set(names))


def test_names_carry_the_unit():
    assert histogram_name("attention.entropy") == "introspan_attention_entropy_nats"
    assert gauge_name("residual.curvature") == "introspan_residual_curvature_window_mean_radians"
    assert event_name("residual.nonfinite") == "introspan_residual_nonfinite_events"
    assert event_name("output.repetition") == "introspan_output_repetition_segments"


def test_everything_the_collector_counts_is_exposed():
    ours = sources(aggregator_with_one_batch())
    before = lines_of(ours)
    for field in Stats.__dataclass_fields__:
        changed = replace(stats(), **{field: {"other": 9} if field in MAPPINGS else 99})
        after = lines_of(replace(ours, stats=lambda changed=changed: changed))
        assert len(after - before) == 1, field


def lines_of(ours):
    return set(render(ours, "text/plain")[0].decode().splitlines())

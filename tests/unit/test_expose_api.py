"""The JSON API: what it answers, and what it says to a question it cannot."""

import time
from dataclasses import replace

import numpy as np
import pytest
from starlette.testclient import TestClient

from bench.fleet import Shape, batch, origin, schema, table
from introspan_collector.aggregate.aggregator import Aggregator
from introspan_collector.archive.archive import Archive
from introspan_collector.expose.app import build
from introspan_collector.expose.tracks import Question, answer
from introspan_collector.model import DisabledSignal, ProducerStatus, Stats
from introspan_wire.signals import CATALOGUE
from tests.exposed import watched_sources

SECOND = 10**9
SHAPE = Shape(residual_layers=(0, 8), attention_layers=(8,), projection_layers=(8,), heads=2)
STATUS = ProducerStatus(
    7, 21, 0.5, (("queue_full", 3),), (DisabledSignal("attention", "self_check", "x"),), 1, 2, 4, 0.25
)


def stats():
    return Stats(
        **dict.fromkeys(Stats.__dataclass_fields__, 0)
        | {"refused_batches": {}, "dropped": {}, "failures": {}, "consumer_cpu_seconds": {}}
    )


class Service:
    """Aggregates, an archive and the application over both."""

    def __init__(self, folder, clock_unix_nano=time.time_ns):
        self.clock = clock_unix_nano
        self.aggregator = Aggregator(clock_unix_nano=clock_unix_nano)
        self.archive = Archive(folder)
        self.ready = True
        self.sources = watched_sources(self.aggregator, self.archive, stats, lambda: self.ready)
        self.client = TestClient(build(self.sources))
        self._number = 0

    def take(self, *, seconds_ago=0.0, value=None, rows=2, who=None):
        now = self.clock() - int(seconds_ago * SECOND)
        of = table(schema(SHAPE), rows, np.random.default_rng(self._number), time_unix_nano=now)
        if value is not None:
            of = replace(of, values=np.full_like(of.values, value))
        one = batch(of, who=who, number=self._number, received_unix_nano=now, status=STATUS)
        self._number += 1
        self.aggregator.consume(one)
        self.archive.consume(one)

    def get(self, path, **parameters):
        return self.client.get(f"/api/v1/{path}", params=parameters)


@pytest.fixture
def service(tmp_path):
    service = Service(tmp_path)
    for model, replica in (("b", "0"), ("a", "1"), ("a", "0")):
        service.take(who=origin(model, replica))
    return service


def test_health_and_readiness_are_two_things(service):
    assert service.client.get("/healthz").status_code == 200
    assert service.client.get("/readyz").status_code == 200
    service.ready = False
    assert service.client.get("/healthz").status_code == 200
    assert service.client.get("/readyz").status_code == 503


def test_models_replicas_and_layers_are_listed(service):
    models = service.get("models").json()["models"]
    assert [(one["model"], one["replicas"], one["layer_count"]) for one in models] == [
        ("a", 2, 32),
        ("b", 1, 32),
    ]
    replicas = service.get("replicas", model="a").json()["replicas"]
    assert [(one["replica"], one["engine"]) for one in replicas] == [("0", "vllm"), ("1", "vllm")]
    layers = service.get("layers", model="b").json()["layers"]
    assert layers[0]["signals"]["residual.turn"] == [0, 8]
    assert layers[0]["signals"]["attention.entropy"] == [8]
    assert "output.entropy" not in layers[0]["signals"]


def test_signals_are_those_of_the_catalogue_with_their_metric_names(service):
    signals = {one["signal"]: one for one in service.get("signals").json()["signals"]}
    assert list(signals) == list(CATALOGUE)
    assert signals["output.entropy"]["histogram"] == "introspan_output_entropy_nats"
    assert signals["output.entropy"]["measured"]
    projection = signals["residual.projection"]
    assert (projection["gauge"], projection["histogram"], projection["counter"]) == (None, None, None)


def test_latest_has_the_window_of_every_series_and_selects(service):
    everything = service.get("latest").json()
    assert len(everything["series"]) == 3 * (2 * 7 + 3 + 7)
    (one,) = service.get("latest", model="a", replica="1", signal="output.entropy").json()["series"]
    assert (one["layer"], one["count"]) == (None, 2)
    assert one["min"] <= one["mean"] <= one["max"]
    short = service.get("latest", limit=5).json()
    assert (len(short["series"]), short["truncated"], everything["truncated"]) == (5, True, False)


def test_status_says_what_is_off_and_what_was_dropped(service):
    (one,) = service.get("status", model="b").json()["replicas"]
    assert one["disabled"] == [{"signal": "attention", "reason": "self_check", "detail": "x"}]
    assert (one["drops"], one["segments"], one["measured_rows"]) == ({"queue_full": 3}, {"decoded": 2}, 21)
    assert time.time() - one["last_seen"] < 60


def test_what_one_worker_says_that_is_no_number_is_null_and_spoils_no_answer(service):
    of = table(schema(SHAPE), 2, np.random.default_rng(1), time_unix_nano=time.time_ns())
    status = replace(STATUS, capture_seconds=float("inf"), sampling_probability=float("nan"))
    service.aggregator.consume(batch(of, who=origin("c", "0"), number=9, status=status))
    answered = {one["model"]: one for one in service.get("status").json()["replicas"]}
    assert (answered["c"]["capture_seconds"], answered["c"]["sampling_probability"]) == (None, None)
    assert answered["b"]["sampling_probability"] == 0.25


@pytest.mark.parametrize(
    ("path", "parameters", "key"),
    [
        ("query", {}, "signal"),
        ("query", {"signal": "residual.spin"}, "signal"),
        ("query", {"signal": "output.entropy", "layer": "two"}, "layer"),
        ("query", {"signal": "output.entropy", "from": "yesterday"}, "from"),
        ("query", {"signal": "output.entropy", "from": "nan"}, "from"),
        ("query", {"signal": "output.entropy", "step": "-5"}, "step"),
        ("query", {"signal": "output.entropy", "to": "1e30"}, "to"),
        ("query", {"signal": "output.entropy", "from": "2e9", "to": "1e9"}, "from"),
        ("query", {"signal": "output.entropy", "since": "10m"}, "since"),
        ("latest", {"limit": "0"}, "limit"),
        ("latest", {"limit": "many"}, "limit"),
        ("latest", {"signal": "output"}, "signal"),
        ("models", {"model": "a"}, "model"),
    ],
)
def test_a_bad_parameter_is_answered_with_key_value_and_remedy(service, path, parameters, key):
    answered = service.get(path, **parameters)
    assert answered.status_code == 400
    error = answered.json()["error"]
    assert (error["key"], error["value"]) == (key, parameters.get(key, ""))
    assert error["remedy"]


def test_a_call_that_there_is_not_is_answered_with_key_value_and_remedy_too(service):
    unknown, wrong = service.get("modles"), service.client.put("/api/v1/models")
    assert (unknown.status_code, wrong.status_code) == (404, 405)
    error = unknown.json()["error"]
    assert (error["key"], error["value"]) == ("path", "/api/v1/modles")
    error = wrong.json()["error"]
    assert (error["key"], error["value"]) == ("method", "PUT")
    assert "GET" in error["remedy"]


def test_the_bounds_of_a_time_are_said_to_the_second(service):
    end = 1_700_000_123
    error = service.get("query", **{"signal": "output.entropy", "from": "nan", "to": str(end)}).json()[
        "error"
    ]
    assert error["remedy"].endswith(f" to {end}")


def test_a_range_in_too_many_steps_is_refused(service):
    now = time.time()
    parameters = {"signal": "output.entropy", "from": now - 300 * 86_400, "step": 60}
    error = service.get("query", **parameters).json()["error"]
    assert error["key"] == "step"
    enough = {**parameters, "step": int(error["remedy"].split("at least ")[1].split()[0]) + 1}
    assert service.get("query", **enough).status_code == 200


def asked(start, end, step=60.0, **which):
    wanted = {"model": None, "replica": None, "adapter": None, "layer": None} | which
    return Question("output.entropy", start=start, end=end, step=step, **wanted)


@pytest.mark.parametrize("second", [0, 5, 31, 59])
def test_a_long_range_joins_rollups_and_slots_and_counts_everything_once(tmp_path, second):
    now = (time.time() // 60) * 60 + float(second)
    clock = [now]
    service = Service(tmp_path, lambda: int(clock[0] * SECOND))
    for number in range(600):
        service.take(seconds_ago=599 - number, value=float(number), rows=1)
        if number % 40 == 39:  # as the archive would in time
            service.archive.flush()
    found = answer(service.sources, asked(now - 3_600, now + 1), lambda: now)
    (series,) = found["series"]
    assert sum(point[2] for point in series["points"]) == 600
    starts = [point[0] for point in series["points"]]
    assert starts == sorted(set(starts))
    middle = series["points"][5]
    assert middle[2] == 60
    assert middle[5] - middle[4] == 59
    assert middle[1] == pytest.approx((middle[4] + middle[5]) / 2)


def test_recent_ranges_have_the_resolution_of_slots(tmp_path):
    now = (time.time() // 60) * 60 + 59.0
    service = Service(tmp_path, lambda: int(now * SECOND))
    for second in range(60):
        service.take(seconds_ago=59 - second, value=float(second), rows=1)
    found = answer(service.sources, asked(now - 59, now + 1, 10.0), lambda: now)
    assert [point[2] for point in found["series"][0]["points"]] == [10] * 6


def test_a_question_selects_series(tmp_path):
    service = Service(tmp_path)
    for model, replica in (("a", "0"), ("a", "1"), ("b", "0")):
        service.take(who=origin(model, replica))
    found = service.get("query", signal="residual.turn", model="a", replica="1", layer=8).json()["series"]
    assert [(one["model"], one["replica"], one["layer"]) for one in found] == [("a", "1", 8)]
    assert service.get("query", signal="residual.turn", model="c").json()["series"] == []

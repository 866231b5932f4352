"""What the API has for pages: heatmaps, heads, requests, and what is healthy."""

import time

import numpy as np
import pytest

from introspan_wire.signals import Kind
from tests.insides import ATTENTION_LAYERS, HEADS, LAYERS, SCHEMAS
from tests.unit.test_page import Served


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return Served(tmp_path_factory.mktemp("served")).warm()


def column(table, signal, layer=-1, head=-1):
    places = [(one.signal, one.layer, one.head) for one in table.schema.columns]
    return table.values[:, places.index((signal, layer, head))]


def test_a_heatmap_has_the_mean_of_each_layer_and_minute(served):
    found = served.api("heatmap", model="m", signal="residual.turn", **{"from": time.time() - 1200})
    assert found["layers"] == list(LAYERS)
    assert found["step_seconds"] == 60
    assert len(found["times"]) == len(found["mean"][0]) <= 22
    assert found["times"] == sorted(found["times"])
    mean = np.array(found["mean"], float)
    healthy = np.array([one["mean"] for one in found["healthy"]])
    spread = np.array([one["stddev"] for one in found["healthy"]])
    z = (mean - healthy[:, None]) / spread[:, None]
    assert np.nanmax(np.abs(z)) < 1.0, "healthy traffic is near the reference"
    assert found["mean"][0][0] is None, "nothing was measured so long ago"


def test_a_step_is_chosen_so_that_no_range_has_more_than_240(served):
    for seconds, step in ((3_600, 60), (21_600, 120), (86_400, 600), (604_800, 3_600), (7_776_000, 43_200)):
        found = served.api("heatmap", model="m", signal="output.entropy", **{"from": time.time() - seconds})
        assert found["step_seconds"] == step
        assert len(found["times"]) <= 241
        assert found["layers"] == [None]


def test_what_is_healthy_is_the_mixture_of_kinds_that_is_served(served):
    values = served.api("references/values", model="m")["values"]
    of = {one["kind"]: one for one in values if (one["signal"], one["layer"]) == ("output.entropy", -1)}
    assert set(of) == {"prompt", "decoded"}
    assert all(one["requests"] > 100 for one in of.values())
    (mixed,) = served.api("heatmap", model="m", signal="output.entropy")["healthy"]
    assert mixed["mean"] == pytest.approx((of["prompt"]["mean"] + of["decoded"]["mean"]) / 2, rel=1e-6)
    second = sum(one["stddev"] ** 2 + (one["mean"] - mixed["mean"]) ** 2 for one in of.values()) / 2
    assert mixed["stddev"] == pytest.approx(second**0.5, rel=1e-6)
    assert served.api("references/values", model="another")["values"] == []


def test_heads_are_the_means_of_the_newest_segments(served):
    tables = served.take(5)
    decoded = next(table for table in tables if table.schema.kind is Kind.DECODED)
    found = served.api("heads", model="m", limit=5)
    assert (found["layers"], found["heads"], found["segments"]) == (
        list(ATTENTION_LAYERS),
        list(range(HEADS)),
        5,
    )
    for row, layer in enumerate(ATTENTION_LAYERS):
        for head in range(HEADS):
            expected = column(decoded, "attention.entropy", layer, head).mean()
            assert found["mean"][row][head] == pytest.approx(expected, rel=1e-3)
    refused = served.page("/api/v1/heads", model="m", signal="residual.turn")
    assert refused.status_code == 400
    assert "attention.entropy" in refused.json()["error"]["remedy"]


def test_the_course_of_drift_is_beside_what_chance_makes_of_it_and_little_however_long_it_is(served):
    kinds = {one["kind"]: one["points"] for one in served.api("drift", model="m")["kinds"]}
    assert set(kinds) == {"prompt", "decoded"}
    points = np.array(kinds["prompt"])
    assert len(points) >= 5
    assert (np.diff(points[:, 0]) > 0).all()
    assert (points[:, 1] < points[:, 2]).all(), "healthy traffic is within what chance makes of it"
    month = served.api("drift", model="m", **{"from": time.time() - 30 * 86_400})
    (farthest, *others) = {one["kind"]: one["points"] for one in month["kinds"]}["prompt"]
    assert len(others) <= 1
    beyond = points[:, 1] / points[:, 2]
    assert farthest[1] / farthest[2] == pytest.approx(beyond.max()) or others
    assert served.page("/api/v1/drift", model="m", sign="a").status_code == 400


def test_a_request_has_every_value_of_every_segment_heads_averaged(served):
    tables = served.take(3, segments=2)
    wanted = tables[0].request_id[1]
    (found,) = served.api("request", id=wanted)["requests"]
    assert [one["kind"] for one in found["segments"]] == ["prompt", "decoded", "decoded"]
    assert [one["token_start"] for one in found["segments"]] == [99, 100, 164]
    for segment, table in zip(found["segments"], tables, strict=True):
        values = {(one["signal"], one["layer"]): one for one in segment["values"]}
        assert values["residual.turn", 8]["value"] == pytest.approx(column(table, "residual.turn", 8)[1])
        heads = np.mean([column(table, "attention.entropy", 10, head)[1] for head in range(HEADS)])
        assert values["attention.entropy", 10]["value"] == pytest.approx(heads, rel=1e-5)
        one = values["residual.turn", 8]
        assert one["z"] == pytest.approx((one["value"] - one["healthy"]["mean"]) / one["healthy"]["stddev"])
    assert found["trace_id"] == tables[0].trace_id[1].tobytes().hex()
    assert all(0 < one["rank"] <= 1 for one in found["judged"])
    signals = {one["signal"] for one in found["segments"][0]["values"]}
    assert "residual.projection" not in signals
    assert signals <= {one.signal for one in SCHEMAS[Kind.PROMPT].columns}


def test_the_newest_requests_are_listed_once_each(served):
    tables = served.take(4, segments=2)
    found = served.api("requests", model="m", limit=4)["requests"]
    assert {one["request_id"] for one in found} == set(tables[0].request_id)
    assert {one["segments"] for one in found} == {3}


@pytest.mark.parametrize(
    ("path", "parameters", "key"),
    [
        ("heatmap", {"model": "m"}, "signal"),
        ("heatmap", {"signal": "output.entropy"}, "model"),
        ("heatmap", {"model": "m", "signal": "output.entropy", "from": "soon"}, "from"),
        ("heads", {"model": "m", "kind": "canary"}, "kind"),
        ("heads", {"model": "m", "limit": "1001"}, "limit"),
        ("requests", {}, "model"),
        ("request", {}, "id"),
        ("request", {"id": "x" * 513}, "id"),
        ("references/values", {}, "model"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused_by_the_name_of_what_is_wrong(
    served, path, parameters, key
):
    answer = served.page(f"/api/v1/{path}", **parameters)
    assert answer.status_code == 400
    assert answer.json()["error"]["key"] == key


def test_a_request_that_nobody_knows_is_not_found(served):
    answer = served.page("/api/v1/request", id="chatcmpl-none")
    assert answer.status_code == 404
    assert "may not be sampled" in answer.json()["error"]["remedy"]

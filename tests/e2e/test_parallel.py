"""A model spread over several workers, by tensor and by pipeline parallelism: together they measure what one measures.

Compared with one worker of the same checkpoint in float32, at every token, layer and head. Sums over two halves round
otherwise than over the whole: the tolerances are those of every comparison with the reference model.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from comparison import TOLERANCE
from engine import EVERYTHING, Call, Run, run
from ranked import FOLDER, read
from test_late_tokens import ASYNCHRONOUS
from tiny_models import SERVED, VOCABULARY, write

from tests.collector import Collector
from tests.patience import eventually

pytestmark = pytest.mark.xdist_group("parallel")

HIDDEN_SIZE, LAYERS, HEADS = 128, 3, 4
ENGINES = {
    "one": {},
    "tensor": {"tensor_parallel_size": 2},
    "pipeline": {"pipeline_parallel_size": 2},
    "both": {"tensor_parallel_size": 2, "pipeline_parallel_size": 2},
    # Keys are there twice: of two key heads each rank has one.
    "four ranks": {"tensor_parallel_size": 4},
    # A stage of one layer, which neither embeds tokens nor draws any.
    "three stages": {"pipeline_parallel_size": 3},
    "compiled ranks": {"tensor_parallel_size": 2, "enforce_eager": False},
    "compiled stages": {"pipeline_parallel_size": 2, "enforce_eager": False},
    "asynchronous": {"tensor_parallel_size": 2},
}
OFTEN = ("tensor", "pipeline", "both")
SELDOM = tuple(name for name in ENGINES if name not in ("one", *OFTEN))
_PREPARE = "import ranked\nranked.prepare()"
PREPARE = dict.fromkeys(ENGINES, _PREPARE) | {"asynchronous": f"{_PREPARE}\n{ASYNCHRONOUS}"}


def _calls():
    draw = np.random.default_rng(3)

    def call(number, length, at, **params):
        prompt = draw.integers(3, VOCABULARY, length).tolist()
        return Call(f"request {number}", prompt, params | {"max_tokens": 10, "ignore_eos": True}, at=at)

    # What is drawn at random has an engine for itself: one generator draws for all, and stages alternate.
    alone = [
        call(0, 7, 0, temperature=1.0, top_p=0.9),
        call(1, 200, 40, temperature=0.8, top_k=20),
    ]
    together = [call(2 + i, length, 80 + i, temperature=0.0) for i, length in enumerate((1, 60, 130, 9))]
    # Random weights repeat their input otherwise, and nothing would move.
    return [*alone, *together, call(6, 30, 82, temperature=0.0, repetition_penalty=10.0)]


CALLS = _calls()
ASKED = {call.id for call in CALLS}


def known(name, request_id):
    """Whether workers hear that a request's tokens were delivered: of the last, none that runs ahead does."""
    return name != "asynchronous" or request_id in ASKED


def served(name, model, folder, endpoint, engine, prepare):
    """Runs an engine to its end; its answers, and what each worker kept."""
    kept = folder / f"{name}-rows"
    kept.mkdir(parents=True)
    environment = EVERYTHING | {
        "INTROSPAN_ENDPOINT": endpoint,
        "INTROSPAN_REPLICA": name,
        "VLLM_DISABLE_REQUEST_ID_RANDOMIZATION": "1",  # what U of a token is drawn by
        FOLDER: str(kept),
    }
    how = SERVED | {
        "served_model_name": name,
        "max_model_len": 512,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 128,
        "distributed_executor_backend": "mp",
    }
    task = Run(str(model), CALLS, how | engine, environment, "real", prepare)
    result = run(task, folder / name, timeout_seconds=120)
    # Workers end after the engine that they serve.
    workers = eventually(lambda: len(found := read(kept)) == len(parts(engine)) and found, 30)
    return result, workers


def parts(engine):
    """Stage and tensor rank of each worker."""
    stages, ranks = (engine.get(f"{kind}_parallel_size", 1) for kind in ("pipeline", "tensor"))
    return [(stage, rank) for stage in range(stages) for rank in range(ranks)]


class Engines:
    """Answers and rows of each engine, which is started once, when it is first asked for."""

    def __init__(self, model, folder, endpoint):
        self._given = model, folder, endpoint
        self._found = {}

    def __getitem__(self, name):
        if name not in self._found:
            self._found[name] = served(name, *self._given, ENGINES[name], PREPARE[name])
        return self._found[name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("parallel")


@pytest.fixture(scope="module")
def collector(folder, free_port):
    with Collector(folder, free_port) as running:
        yield running


@pytest.fixture(scope="module")
def model(folder):
    return write("llama", folder / "llama")


@pytest.fixture(scope="module")
def engines(model, folder, collector):
    return Engines(model, folder, collector.grpc)


@pytest.fixture(
    scope="module", params=[*OFTEN, *(pytest.param(name, marks=pytest.mark.slow) for name in SELDOM)]
)
def name(request, engines):
    """Of an engine that has run, as that of one worker has."""
    assert engines["one"]
    assert engines[request.param]
    return request.param


def by_place(worker):
    """Where the row of each request and position is."""
    places = {
        place: row for row, place in enumerate(zip(worker["ids"], worker["positions"].tolist(), strict=True))
    }
    assert len(places) == len(worker["ids"]), "no row twice"
    return places


def test_answers_are_those_of_one_worker(engines, name):
    assert engines[name][0].tokens == engines["one"][0].tokens


def test_every_column_is_measured_by_one_worker(engines, name):
    (whole,) = engines["one"][1].values()
    workers = engines[name][1]
    assert sorted(workers) == parts(ENGINES[name])
    columns = [tuple(column) for worker in workers.values() for column in worker["columns"]]
    assert len(columns) == len(set(columns))
    assert set(columns) == {tuple(column) for column in whole["columns"]}
    assert {worker["resource"]["replica"] for worker in workers.values()} == {name}
    for (stage, rank), worker in workers.items():
        resource = worker["resource"]
        assert (resource["pipeline_parallel_rank"], resource["tensor_parallel_rank"]) == (stage, rank)
        assert worker["status"]["disabled"] == []
        assert worker["status"]["probe_errors"] == 0
        assert worker["compiled_models"] == int("compiled" in name)


def test_every_value_is_that_of_one_worker(engines, name):
    (whole,) = engines["one"][1].values()
    place, column = by_place(whole), {tuple(one): i for i, one in enumerate(whole["columns"])}
    worst = {}
    for worker in engines[name][1].values():
        mine = by_place(worker)
        assert mine.keys() == {one for one in place if known(name, one[0])}
        expected = whole["values"][[place[one] for one in mine]][
            :, [column[tuple(c)] for c in worker["columns"]]
        ]
        found = worker["values"][list(mine.values())]
        for i, (signal, layer, *_) in enumerate(worker["columns"]):
            want, got = expected[:, i].copy(), found[:, i].copy()
            if signal == "residual.curvature":
                # The direction of a step as short as rounding is noise.
                velocity = expected[:, worker["columns"].index(["residual.velocity", layer, -1, -1])]
                short = np.nan_to_num(velocity, nan=1.0) < 1e-3
                want[short] = got[short] = np.nan
            assert np.array_equal(np.isnan(got), np.isnan(want)), f"{worker['columns'][i]}: measured where?"
            assert not np.isnan(want).all(), f"{worker['columns'][i]} is nowhere measured"
            unit = np.sqrt(HIDDEN_SIZE) if signal == "residual.projection" else 1.0
            worst[signal] = max(worst.get(signal, 0.0), float(np.nanmax(np.abs(got - want))) / unit)
    assert worst.keys() == TOLERANCE.keys()
    assert all(off <= TOLERANCE[signal] for signal, off in worst.items()), worst


def test_callers_and_lengths_are_the_same_at_every_worker(engines, name):
    workers = list(engines[name][1].values())
    assert all(worker["clusters"] == workers[0]["clusters"] for worker in workers)
    assert all(worker["ended"] == workers[0]["ended"] for worker in workers)
    assert set(workers[0]["ended"]) == ASKED


@pytest.fixture(scope="module")
def observations(collector, name):
    """What `introspan observations` says of everything of one worker, and of this engine."""
    collector.wait_processed()
    found = {"one": {}, name: {}}
    for one in collector.observations():
        if one["model"] not in found:
            continue
        segment = (one["request_id"], one["kind"], one["segment"], one["token_start"], one["token_count"])
        assert segment not in found[one["model"]], "each segment once"
        found[one["model"]][segment] = {
            (v["signal"], v["layer"], v["head"], v["component"], v["statistic"]): v["value"]
            for v in one["values"]
        }
    return found


def test_an_observation_has_what_all_workers_measured(observations, name):
    expected, found = observations["one"], observations[name]
    assert len(expected) == 2 * len(CALLS) + 2, (
        "a prompt, and what was generated; and of the driver's own request"
    )
    assert found.keys() == {segment for segment in expected if known(name, segment[0])}
    for segment in found:
        values = expected[segment]
        assert found[segment].keys() == values.keys()
        for column, value in values.items():
            signal, layer = column[:2]
            if (
                signal == "residual.curvature"
                and values["residual.velocity", layer, None, None, "mean"] < 1e-2
            ):
                continue  # the mean has directions of steps as short as rounding
            tolerance = TOLERANCE[signal] * (np.sqrt(HIDDEN_SIZE) if signal == "residual.projection" else 1.0)
            assert found[segment][column] == pytest.approx(value, abs=tolerance), (segment, column)


def test_the_api_has_one_request_of_one_replica(collector, name):
    collector.wait_processed()
    answer = json.loads(collector.get("/api/v1/request", id="request 4").text)["requests"]
    expected, mine = ([one for one in answer if one["model"] == model] for model in ("one", name))
    assert len(mine) == 1
    segments, wanted = ([len(s["values"]) for s in of[0]["segments"]] for of in (mine, expected))
    assert segments == wanted
    models = {one["model"]: one for one in json.loads(collector.get("/api/v1/models").text)["models"]}
    assert (models[name]["replicas"], models[name]["layer_count"], models[name]["head_count"]) == (
        1,
        LAYERS,
        HEADS,
    )
    assert len(models[name]["fingerprints"]) == 1
    heads = json.loads(collector.get("/api/v1/heads", model=name, signal="attention.entropy").text)
    assert (heads["layers"], heads["heads"]) == (list(range(LAYERS)), list(range(HEADS)))


def test_a_reference_counts_each_request_once(collector, name):
    def counts(model):
        every = json.loads(collector.get("/api/v1/references").text)["references"]
        (building,) = [one["building"] for one in every if one["model"] == model]
        return [one["requests"] for one in building]

    collector.wait_processed()
    unknown = not known(name, "last")
    eventually(lambda: [count + unknown for count in counts(name)] == counts("one") != [], 30)


_ONE_RAISES = f"""{_PREPARE}
import introspan.capture.taps.attention as taps
import introspan.capture.step.recorder as recorder
from vllm.distributed import get_tensor_model_parallel_rank
record, after = taps.AttentionTap._record, recorder.Recorder.after_sampling
def raising(original):
    def call(*args, **kwargs):
        if get_tensor_model_parallel_rank() == 1:
            raise RuntimeError("broken on purpose")
        return original(*args, **kwargs)
    return call
taps.AttentionTap._record = raising(record)
recorder.Recorder.after_sampling = raising(after)
"""


def test_a_worker_in_which_capture_raises_neither_stops_nor_changes_the_others(
    engines, model, folder, collector
):
    tensor = ENGINES["tensor"]
    result, workers = served("broken", model, folder, collector.grpc, tensor, _ONE_RAISES)
    expected_result, expected = engines["tensor"]
    assert result.tokens == expected_result.tokens
    broken, whole = workers[0, 1], workers[0, 0]
    assert broken["status"]["probe_errors"] > 0
    assert [one["signal"] for one in broken["status"]["disabled"]] != []
    assert not len(broken["positions"])
    assert whole["status"]["disabled"] == []
    mine, theirs = by_place(whole), by_place(expected[0, 0])
    assert mine.keys() == theirs.keys()
    values = whole["values"][list(mine.values())]
    wanted = expected[0, 0]["values"][[theirs[place] for place in mine]]
    assert np.array_equal(np.isnan(values), np.isnan(wanted))


def test_nothing_of_ours_waits_for_another_worker():
    """No source of the SDK names a collective: a worker that ends, or raises, is waited for by nobody."""
    import introspan

    sources = Path(introspan.__file__).parent.rglob("*.py")
    words = ("torch.distributed", "all_reduce", "all_gather", "broadcast(", "barrier(")
    assert not [(path.name, word) for path in sources for word in words if word in path.read_text()]

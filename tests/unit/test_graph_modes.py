"""vLLM's own choice of graphs, asked for others for the time of a step; the engine is as it was before and after."""

import inspect
from dataclasses import replace
from functools import wraps

import pytest
from vllm.config import CUDAGraphMode
from vllm.v1.worker.gpu.model_runner import GPUModelRunner as SecondRunner
from vllm.v1.worker.gpu_model_runner import GPUModelRunner as FirstRunner

from introspan.capture.health import Health
from introspan.capture.runner.graph_modes import GraphModes
from introspan.capture.runner.ladder import Rung
from tests.dispatching import V1, V2, engine_config, step

RUNNERS = pytest.mark.parametrize("kind", [V1, V2])
DECODE, MIXED, LONG = step(1, 1, 1), step(5, 1), step(40)


class Steps:
    """A ladder's side of it: each step runs at the rung that is set."""

    def __init__(self) -> None:
        self.rung, self.begun = Rung.IN_GRAPH, 0

    def begin_step(self) -> Rung:
        self.begun += 1
        return self.rung


def followed(kind, mode: str = "FULL_AND_PIECEWISE", **parallel: int):
    config, health, steps = engine_config(mode, **parallel), Health(), Steps()
    runner = kind(config)
    modes = GraphModes(runner, config, health)
    modes.follow(steps)
    return runner, modes, steps, health


def of(runner):
    """What decides on the runner's graphs."""
    return runner.cudagraph_dispatcher if isinstance(runner, V1) else runner.cudagraph_manager


@RUNNERS
def test_a_step_is_run_as_its_rung_says_and_the_next_one_as_ever(kind):
    runner, _, steps, health = followed(kind)
    for rung in (Rung.IN_GRAPH, Rung.PIECEWISE, Rung.IN_GRAPH, Rung.EAGER, Rung.IN_GRAPH):
        steps.rung = rung
        for scheduled in (DECODE, MIXED, LONG):
            runner.execute_model(scheduled)
    as_ever = ["FULL", "PIECEWISE", "NONE"]
    between, without = ["PIECEWISE", "PIECEWISE", "NONE"], ["NONE"] * 3
    assert runner.modes == [*as_ever, *between, *as_ever, *without, *as_ever]
    assert runner.tokens[3:6] == [4, 8, 40], "padded to the sizes that were recorded"
    assert runner.tokens[9:12] == [3, 6, 40], "padded to nothing"
    assert "dispatch" not in vars(of(runner))
    assert not health.errors


@RUNNERS
def test_a_decoding_batch_gets_the_pieces_that_one_with_prompts_gets(kind):
    runner, _, steps, _ = followed(kind)
    answers = []
    dispatch = of(runner).dispatch

    @wraps(dispatch)
    def told(*args, **kwargs):
        answers.append(dispatch(*args, **kwargs))
        return answers[-1]

    of(runner).dispatch = told
    runner.execute_model(step(2, 1, 1))
    mixed = answers[-1]
    steps.rung = Rung.PIECEWISE
    runner.execute_model(step(1, 1, 1, 1))
    assert answers[-1] == mixed
    assert of(runner).dispatch is told, "somebody else's exchange is left in place"


@RUNNERS
def test_a_step_that_raises_leaves_the_engine_as_it_was(kind):
    runner, _, steps, health = followed(kind)

    def fail(_) -> None:
        raise RuntimeError("out of memory")

    steps.rung, runner.run = Rung.PIECEWISE, fail
    with pytest.raises(RuntimeError, match="out of memory"):
        runner.execute_model(DECODE)
    assert "dispatch" not in vars(of(runner))
    assert not health.errors


@RUNNERS
def test_an_engine_that_cannot_answer_goes_on_with_its_first_answer(kind):
    runner, _, steps, health = followed(kind)
    dispatch, asked = of(runner).dispatch, []

    @wraps(dispatch)
    def once(*args, **kwargs):
        asked.append(args)
        if len(asked) > 1:
            raise ValueError("no such batch")
        return dispatch(*args, **kwargs)

    of(runner).dispatch = once
    steps.rung = Rung.PIECEWISE
    runner.execute_model(DECODE)
    assert len(asked) == 2
    assert runner.modes == ["FULL"]
    assert health.errors["capture"] == 1


@RUNNERS
def test_a_scheduler_output_of_another_make_is_run_all_the_same(kind):
    runner, _, steps, health = followed(kind)
    steps.rung = Rung.EAGER
    other = step(1)
    del other.total_num_scheduled_tokens
    runner.execute_model(other)
    assert runner.modes == ["FULL"]
    assert health.errors["capture"] == 1


@RUNNERS
@pytest.mark.parametrize(
    ("mode", "offered"),
    [
        ("FULL_AND_PIECEWISE", [Rung.PIECEWISE, Rung.EAGER]),
        ("FULL", [Rung.EAGER]),
        ("FULL_DECODE_ONLY", [Rung.EAGER]),
        ("PIECEWISE", [Rung.EAGER]),
        ("NONE", []),
    ],
)
def test_rungs_are_offered_as_far_as_the_engine_has_graphs(kind, mode, offered):
    runner, modes, steps, _ = followed(kind, mode)
    assert [rung for rung in (Rung.PIECEWISE, Rung.EAGER) if modes.refusal(rung) is None] == offered
    for rung in (Rung.PIECEWISE, Rung.EAGER):
        assert rung in offered or mode in str(modes.refusal(rung))
    for steps.rung in offered:
        runner.execute_model(DECODE)
        assert runner.modes[-1] == ("PIECEWISE" if steps.rung is Rung.PIECEWISE else "NONE")


@RUNNERS
@pytest.mark.parametrize(
    ("parallel", "words"),
    [
        ("tensor_parallel_size", "cannot agree"),
        ("pipeline_parallel_size", "cannot agree"),
        ("data_parallel_size", "for the sake of one"),
    ],
)
def test_workers_that_have_to_run_alike_are_offered_no_rung(kind, parallel, words):
    _, modes, _, _ = followed(kind, **{parallel: 2})
    for rung in (Rung.PIECEWISE, Rung.EAGER):
        assert words in str(modes.refusal(rung))


@RUNNERS
def test_a_release_that_decides_otherwise_is_refused_by_name(kind):
    runner, modes, _, _ = followed(kind)
    of(runner).dispatch = lambda num_tokens: num_tokens
    missing = "valid_modes, invalid_modes" if kind is V1 else "num_reqs, uniform_token_count"
    assert modes.refusal(Rung.EAGER) == f"{type(of(runner)).__name__}.dispatch takes no {missing}"
    bare = GraphModes(object(), engine_config("FULL"), Health())
    assert bare.refusal(Rung.EAGER) == "object has no cudagraph_manager that decides on graphs"


def test_empty_and_dummy_steps_are_no_steps():
    runner, _, steps, _ = followed(V2)
    steps.rung = Rung.EAGER
    runner.execute_model(step())
    runner.execute_model(DECODE, None, True)  # noqa: FBT003 - vLLM's
    runner.execute_model(DECODE, dummy_run=True)
    assert runner.modes == ["FULL", "FULL"]
    assert not steps.begun
    assert list(inspect.signature(SecondRunner.execute_model).parameters)[3] == "dummy_run", "by place"


def test_the_runners_have_what_decides_under_these_names():
    # Doubles use vLLM's own dispatcher and manager; that its runners do too can only be read without a GPU.
    assert "self.cudagraph_dispatcher = CudagraphDispatcher(" in inspect.getsource(FirstRunner.__init__)
    assert "self.cudagraph_manager = ModelCudaGraphManager(" in inspect.getsource(SecondRunner)
    assert "dispatch_cg_and_sync_dp(\n            self.cudagraph_manager," in inspect.getsource(
        SecondRunner.execute_model
    )
    assert "self._determine_batch_execution_and_padding(" in inspect.getsource(FirstRunner.execute_model)


def test_graphs_that_were_recorded_anew_are_asked_too():
    runner, _, steps, _ = followed(V2)
    steps.rung = Rung.PIECEWISE
    runner.execute_model(DECODE)
    runner.record()
    runner.execute_model(DECODE)
    assert runner.modes == ["PIECEWISE", "PIECEWISE"]


def test_a_mode_that_the_engine_has_settled_on_is_left_alone():
    runner, _, steps, health = followed(V1)
    seen = []
    runner.run = lambda _: seen.append(
        runner.cudagraph_dispatcher.dispatch(3, uniform_decode=True, valid_modes={CUDAGraphMode.FULL})[0]
    )
    steps.rung = Rung.EAGER
    runner.execute_model(DECODE)
    assert runner.modes == ["NONE"]
    assert seen == [CUDAGraphMode.FULL], "ranks have agreed on it"
    assert not health.errors


def test_a_batch_that_was_split_is_left_alone():
    runner, _, steps, health = followed(V2)
    dispatch = runner.cudagraph_manager.dispatch

    @wraps(dispatch)
    def split(*args, **kwargs):
        return replace(dispatch(*args, **kwargs), num_ubatches=2)

    runner.cudagraph_manager.dispatch = split
    for steps.rung in (Rung.PIECEWISE, Rung.EAGER):
        runner.execute_model(DECODE)
    assert runner.modes == ["FULL", "FULL"]
    assert not health.errors

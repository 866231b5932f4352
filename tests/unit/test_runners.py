"""Which runner is followed how, and what is said of those that are not."""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from introspan.capture.runner import choice, v1_runner, v2_runner

_LIMITS = Path(__file__).parents[2] / "docs" / "limits.md"


@dataclass
class InputBatch:
    """The fields of vLLM's that are relied on; the adapter finds them where the runner's class is."""

    req_ids: None = None
    query_start_loc_np: None = None
    cu_num_logits_np: None = None
    num_computed_tokens_np: None = None
    prefill_len_np: None = None


def _with(*names: str, **given: object) -> SimpleNamespace:
    made = type("Runner", (SimpleNamespace,), {"__module__": __name__})
    return made(**dict.fromkeys(names) | given)


FIRST = _with(*v1_runner.METHODS, "execute_model_state", "input_batch", "requests")
SECOND = _with(*v2_runner.METHODS, "model", "req_states", "max_model_len")
PARALLEL = {
    "prefill_context_parallel_size": 1,
    "decode_context_parallel_size": 1,
    "pipeline_parallel_size": 1,
}
SUPPORTED = {
    "speculative_config": None,
    "parallel_config": SimpleNamespace(**PARALLEL),
    "cache_config": SimpleNamespace(),
    "model_config": SimpleNamespace(runner_type="generate"),
    "scheduler_config": SimpleNamespace(async_scheduling=True),
}
OF_BOTH = {
    "prefill": {"parallel_config": SimpleNamespace(**PARALLEL | {"prefill_context_parallel_size": 2})},
    "decoding": {"parallel_config": SimpleNamespace(**PARALLEL | {"decode_context_parallel_size": 2})},
    "pooling": {"model_config": SimpleNamespace(runner_type="pooling")},
}
OF_FIRST = {"speculation": {"speculative_config": "any"}}
OF_SECOND = {
    "overlap": {"parallel_config": SimpleNamespace(**PARALLEL, use_ubatching=True)},
    "fast prefill": {"cache_config": SimpleNamespace(kv_sharing_fast_prefill=True)},
}


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(InputBatch=InputBatch))


def test_each_kind_of_runner_has_its_adapter():
    assert not choice.is_v2(FIRST)
    assert choice.is_v2(SECOND)
    for runner in (FIRST, SECOND):
        assert choice.refusal(runner, SimpleNamespace(**SUPPORTED)) is None


@pytest.mark.parametrize(
    ("runner", "given"),
    [(FIRST, of) for of in (OF_BOTH | OF_FIRST).values()]
    + [(SECOND, of) for of in (OF_BOTH | OF_SECOND).values()],
)
def test_why_an_engine_is_not_followed_is_among_the_limits(runner, given):
    why = choice.refusal(runner, SimpleNamespace(**SUPPORTED | given))
    assert why is not None
    assert why in _LIMITS.read_text()


def test_a_model_of_several_tokens_a_step_is_not_followed():
    runner = _with(*vars(SECOND), model_state=SimpleNamespace(num_new_sampled_tokens_per_step=0))
    why = choice.refusal(runner, SimpleNamespace(**SUPPORTED))
    assert why is not None
    assert why in _LIMITS.read_text()


def test_what_a_runner_lacks_is_named(monkeypatch):
    config = SimpleNamespace(**SUPPORTED)
    assert "lacks _update_states, _prepare_inputs, sample_tokens" in choice.refusal(_with(), config)
    without = [name for name in vars(SECOND) if name != "prepare_inputs"]
    assert "lacks prepare_inputs; the V2 runner" in choice.refusal(_with(*without), config)
    monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(InputBatch=type("InputBatch", (), {})))
    assert "InputBatch.num_computed_tokens_np" in choice.refusal(SECOND, config)
    said = _LIMITS.read_text()
    assert "lacks …; the V1 runner of vLLM 0.32 has them" in said
    assert "the V2 runner of vLLM 0.23 to 0.33 has them" in said


@pytest.mark.parametrize(
    ("stages", "is_async", "steps"), [(1, False, 1), (1, True, 2), (3, False, 3), (3, True, 4)]
)
def test_steps_under_way_where_vllm_does_not_say(stages, is_async, steps):
    config = SimpleNamespace(
        parallel_config=SimpleNamespace(pipeline_parallel_size=stages),
        scheduler_config=SimpleNamespace(async_scheduling=is_async),
    )
    assert choice.steps_under_way(config) == steps
    assert choice.steps_under_way(SimpleNamespace(**vars(config), max_concurrent_batches=7)) == 7


class Watermarking:
    """A sampler of another kind."""

    logits_processors = ()


def test_what_is_not_measured_of_an_engine_that_is_followed_is_told():
    def said(given: dict, **runner: object) -> dict[str, str]:
        found = choice.limits(_with(*vars(SECOND), **runner), SimpleNamespace(**SUPPORTED | given))
        return {entry.signal: entry.reason for entry in found}

    assert said({}) == {}
    assert said({}, batch_sharder=None, sampler=type("Sampler", (), {})()) == {}
    assert said({"speculative_config": "any"}) == {"capture.decoded": "speculative_decoding"}
    assert said({}, batch_sharder=object()) == {"output": "logits_sharded"}
    assert said({}, sampler=Watermarking()) == {"sampler": "custom_sampler"}
    foreign = type("Sampler", (), {"logits_processors": [Watermarking()]})()
    assert said({}, sampler=foreign) == {"sampler": "custom_logits_processor"}
